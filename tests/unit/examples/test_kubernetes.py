"""Every manifest of examples/kubernetes is what the schema of its kind allows, down to the last field."""

import os
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from rollout.server.app import JudgeMetrics
from rollout.server.questions import FlaggerBody, JudgeBody
from rollout.sources.profiles import profiles
from tests.support.paths import ROOT

FOLDER = ROOT / "examples/kubernetes"
SCHEMAS = Path(os.environ.get("KANARIA_TEST_CRDS", ROOT.parent / "shared/kubernetes/crds"))
FILES = sorted(FOLDER.rglob("*.yaml"))


class Loader(yaml.CSafeLoader):  # type: ignore[misc] # the stubs have it only where libyaml is known to be
    """As fast as it gets: a schema has ten thousand lines."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda _loader, node: node.value)  # a plain `=`, in an enumeration


@cache
def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.load_all(path.read_text(), Loader) if document]


def schema_of(document: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of a kind that a definition in SCHEMAS has; None for Kubernetes's own kinds."""
    group, _, version = document["apiVersion"].rpartition("/")
    for path in SCHEMAS.glob("*.yaml"):
        if f"kind: {document['kind']}\n" not in path.read_text():
            continue
        for definition in documents(path):
            spec = definition.get("spec", {})
            if spec.get("group") == group and spec.get("names", {}).get("kind") == document["kind"]:
                served = next(each for each in spec["versions"] if each["name"] == version)
                return closed(served["schema"]["openAPIV3Schema"])
    return None


def closed(schema: Any) -> Any:
    """The schema with no field but those that it names: the API server drops all others without a word."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: closed(value) for key, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not is_open:
        copy["additionalProperties"] = False
    return copy


def faults(document: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    for error in jsonschema_rs.validator_for(schema).iter_errors(document):
        yield f"{'.'.join(map(str, error.instance_path))}: {error.message}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_manifest_is_valid(path: Path) -> None:
    """Kinds of Argo Rollouts, Flagger and prometheus-operator; Kubernetes's own are parsed only."""
    if not SCHEMAS.is_dir():
        pytest.skip(f"no schemas in {SCHEMAS}")
    checked = 0
    for document in documents(path):
        schema = schema_of(document)
        is_own = document["apiVersion"].split("/")[0] in ("v1", "apps", "policy", "networking.k8s.io")
        assert schema is not None or is_own, f"no schema of {document['kind']}"
        if schema is not None:
            assert list(faults(document, schema)) == []
            checked += 1
    assert checked or path.stem == "judge"


def test_a_misspelt_field_is_found() -> None:
    """The check itself would find one."""
    if not SCHEMAS.is_dir():
        pytest.skip(f"no schemas in {SCHEMAS}")
    template = deepcopy(documents(FOLDER / "argo/analysis.yaml")[0])
    template["spec"]["metrics"][0]["sucessCondition"] = template["spec"]["metrics"][0].pop("successCondition")
    schema = schema_of(template)
    assert schema is not None
    assert any("sucessCondition" in fault for fault in faults(template, schema))


def test_the_alerts_read_metrics_that_the_judge_exports() -> None:
    """With the labels that they have; `rollout_info` is Argo Rollouts's own."""
    exported = JudgeMetrics().registry
    known = {sample.name: sample.labels for family in exported.collect() for sample in family.samples}
    (rules,) = (each for each in documents(FOLDER / "judge/monitoring.yaml") if each["kind"] == "PrometheusRule")
    for rule in (rule for group in rules["spec"]["groups"] for rule in group["rules"]):
        read = re.findall(r"(kanaria_\w+)(?:\{(\w+)=)?", rule["expr"])
        assert read
        for name, label in read:
            assert name in known
            assert not label or label in known[name]


def test_what_the_manifests_ask_is_what_the_judge_understands(tmp_path: Path) -> None:
    """Bodies, profiles and hooks."""
    judge = next(each for each in documents(FOLDER / "judge/judge.yaml") if each["kind"] == "ConfigMap")
    for name, text in judge["data"].items():
        (tmp_path / name).write_text(text)
    known = profiles(tmp_path)
    for template in documents(FOLDER / "argo/analysis.yaml"):
        body = template["spec"]["metrics"][0]["provider"]["web"]["jsonBody"]
        filled = {
            key: "25" if key == "to_percent" else text.strip("{}").removeprefix("args.") for key, text in body.items()
        }
        assert JudgeBody.model_validate(filled).profile in known
    (canary,) = documents(FOLDER / "flagger/canary.yaml")
    for hook in canary["spec"]["analysis"]["webhooks"]:
        asked = FlaggerBody(name="digits", namespace="shop", metadata=hook.get("metadata", {}))
        if hook["type"] in ("confirm-traffic-increase", "confirm-promotion", "rollback"):
            assert asked.question().profile in known
