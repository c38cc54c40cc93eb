"""The schemas of other projects' resources. Every manifest of ours is checked against them, down to the last field."""

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tests.support.paths import ROOT

SCHEMAS = Path(os.environ.get("KANARIA_TEST_CRDS", ROOT.parent / "shared/kubernetes/crds"))
_OWN_GROUPS = (
    "",
    "apps",
    "policy",
    "networking.k8s.io",
    "rbac.authorization.k8s.io",
)  # Kubernetes's own kinds are not custom resources


class Loader(yaml.CSafeLoader):  # type: ignore[misc] # the stubs define it only where libyaml is known to exist
    """The fastest loader: a schema has ten thousand lines."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda _loader, node: node.value)  # a plain `=` in an enumeration


def need_schemas() -> None:
    """Skip the test and name the folder if it has no schemas."""
    if not SCHEMAS.is_dir():
        pytest.skip(f"no schemas in {SCHEMAS}")


def documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.load_all(text, Loader) if document]


def faults(manifest: Mapping[str, Any]) -> list[str]:
    """What the schema forbids. Of Kubernetes's own kinds only the pod template is checked, like that of a Rollout."""
    kind, api = str(manifest["kind"]), str(manifest["apiVersion"])
    if (validator := _validator(kind, api)) is not None:
        return list(_found(validator, manifest))
    assert api.rpartition("/")[0] in _OWN_GROUPS, f"no schema of {kind} in {api}"
    template = (manifest.get("spec") or {}).get("template")
    return list(_found(_pods(), template)) if template else []


def all_faults(manifests: Iterable[Mapping[str, Any]]) -> list[str]:
    return [f"{each['kind']} {each['metadata']['name']}: {fault}" for each in manifests for fault in faults(each)]


@cache
def _validator(kind: str, api: str) -> Any:
    schema = _schema(kind, api)
    return None if schema is None else jsonschema_rs.validator_for(schema)


@cache
def _pods() -> Any:
    """The validator of a pod template."""
    schema = _schema("Rollout", "argoproj.io/v1alpha1")
    assert schema is not None
    return jsonschema_rs.validator_for(schema["properties"]["spec"]["properties"]["template"])


@cache
def _definitions() -> list[dict[str, Any]]:
    return [each for path in sorted(SCHEMAS.glob("*.yaml")) for each in documents(path.read_text())]


def _schema(kind: str, api: str) -> dict[str, Any] | None:
    group, _, version = api.rpartition("/")
    for definition in _definitions():
        spec = definition.get("spec", {})
        if spec.get("group") == group and spec.get("names", {}).get("kind") == kind:
            served = next(each for each in spec["versions"] if each["name"] == version)
            closed: dict[str, Any] = _closed(served["schema"]["openAPIV3Schema"])
            return closed
    return None


def _closed(schema: Any) -> Any:
    """The schema with only the fields that it names: the API server silently drops all others."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: _closed(value) for key, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not is_open:
        copy["additionalProperties"] = False
    return copy


def _found(validator: Any, document: Any) -> Iterator[str]:
    for error in validator.iter_errors(document):
        yield f"{'.'.join(map(str, error.instance_path))}: {error.message}"
