"""Takes the streams in which the gateway shows answers. Bodies are compared and forgotten, unless one is recorded."""

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from contract import metrics as m
from contract.observation import ANSWERED_BY, COMPARED, COPY, READ, RECORD, REPEAT, ROLE, STABLE
from observer.answers import Reader
from observer.findings import Findings
from observer.messages import (
    ATTRIBUTES,
    HEALTH_METHOD,
    HEALTH_SERVICE,
    HOST,
    METHOD,
    REQUEST_ID,
    ROUTE_NAME,
    SERVICE,
    SERVING,
    ProcessingRequest,
)
from observer.pairing import Pairs, Sampler, Versions
from observer.recording import Recorder

_MOST_STREAMS = 1024
_LARGEST_MESSAGE = 32 * 1024 * 1024  # one part of a body; the gateway sends them as they come


class Observer:
    """Pairs the answers that it is shown."""

    def __init__(self, findings: Findings, recorder: Recorder | None = None) -> None:
        """
        Args:
            recorder: None: no requests are ever recorded.
        """
        self._findings, self._recorder = findings, recorder
        self._sampler = Sampler()
        self._pairs = Pairs(
            lost=lambda count: findings.seen(m.UNPAIRED, count), ambiguous=lambda: findings.seen(m.AMBIGUOUS)
        )
        findings.waiting_bytes.set_function(lambda: self._pairs.bytes)

    async def observe(self, messages: AsyncIterator[Any], metadata: dict[str, str]) -> None:
        """Read one answer, as far as it is needed."""
        role, version = metadata.get(ROLE, ""), metadata.get(READ, "")
        if role == RECORD:
            if self._recorder is not None:
                await self._recorder.observe(messages, metadata.get(ANSWERED_BY, ""))
            return
        stable, _, canary = metadata.get(COMPARED, "").partition(" ")
        is_compared = role in (STABLE, REPEAT, COPY) and bool(canary)
        if not (is_compared or version):
            return
        is_users = role not in (REPEAT, COPY)
        reader, request, route = None, "", ""
        async for message in messages:
            if reader is None:
                request, route, host = _of_request(message)
                if not request or (is_users and not route):
                    return  # of such a request there is no copy, and its answer may be a stream
                if not self._sampler.takes(request, is_users=is_users, now_s=time.monotonic()):
                    self._findings.seen(m.SKIPPED)
                    return
                headers = {header.key: header.raw_value for header in message.response_headers.headers.headers}
                status = headers.get(":status", b"")
                if not status.isdigit():
                    return
                texts = (headers.get(name, b"").decode("latin-1") for name in ("content-type", "content-encoding"))
                reader = Reader(int(status), *texts)
                is_over = message.response_headers.end_of_stream
            else:
                reader.add(message.response_body.body)
                is_over = message.response_body.end_of_stream
            if is_over:
                answer = reader.answer()
                if version and (not host or f'"{version}"' in host):  # else another version answered for it
                    self._findings.answered(version, route, answer)
                if is_compared:
                    versions, now_s = Versions(stable, canary), time.monotonic()
                    for met in self._pairs.add(versions, request, role, answer, now_s=now_s, route=route):
                        self._findings.met(versions, met)
                return
        self._findings.seen(m.CUT)


def make_server(observer: Observer, address: str) -> grpc.aio.Server:
    """The gRPC server at `address`, not started yet."""

    async def process(messages: AsyncIterator[Any], context: Any) -> None:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        await observer.observe(messages, metadata)

    async def check(_request: bytes, _context: Any) -> bytes:
        return SERVING

    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", _LARGEST_MESSAGE)], maximum_concurrent_rpcs=_MOST_STREAMS
    )
    handlers = {
        SERVICE: {
            METHOD: grpc.stream_stream_rpc_method_handler(process, request_deserializer=ProcessingRequest.FromString)
        },
        HEALTH_SERVICE: {HEALTH_METHOD: grpc.unary_unary_rpc_method_handler(check)},
    }
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, methods) for service, methods in handlers.items()]
    )
    server.add_insecure_port(address)
    return server


def _of_request(message: Any) -> tuple[str, str, str]:
    """The request's id, the route that it took, and what Envoy knows of the process that answered.

    The route is empty for a copy, and for what is not copied.
    """
    attributes = message.attributes.get(ATTRIBUTES, {})
    request, route, host = (
        str(attributes[name]) if name in attributes else "" for name in (REQUEST_ID, ROUTE_NAME, HOST)
    )
    return request, route, host
