"""The bill of materials lists every package, model and file, and is valid by CycloneDX's own schema."""

import hashlib
import json
import os
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from typer.testing import CliRunner

from kanaria.cli import app

pytestmark = pytest.mark.needs("audit")

SCHEMAS = "http://cyclonedx.org/schema"
MANIFEST = """
name: b
version: '1'
services: [{name: predictor, models: [{tag: 'm:1'}]}]
docker: {base_image: 'python:3.11-slim-bookworm'}
"""
INSTALLER = "PIP_ARGS=(--constraint ../../src/constraints.txt)\n"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Bento b:1 with the model m:1."""
    written = {
        "models/m/1/model.yaml": "name: m\nversion: '1'\n",
        "models/m/1/weights.safetensors": "weights",
        "bentos/b/1/bento.yaml": MANIFEST,
        "bentos/b/1/src/service.py": "answer = 1\n",
        "bentos/b/1/src/__pycache__/service.pyc": "compiled",
        "bentos/b/1/src/constraints.txt": "numpy==2.4.6\nscipy==1.17.1\n",
        "bentos/b/1/env/python/version.txt": "3.11.7",
        "bentos/b/1/env/python/install.sh": INSTALLER,
        "bentos/b/1/env/python/requirements.txt": "torch==2.13.0\nnumpy>=2  # arrays\n./wheels/own.whl\n",
    }
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    return tmp_path


def schema(name: str) -> Any:
    return json.loads(files("cyclonedx.schema").joinpath("_res", name).read_text())


def bill(*arguments: str) -> dict[str, Any]:
    """What `kanaria sbom` prints; it must match CycloneDX's schema."""
    done = CliRunner().invoke(app, ["sbom", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    others = [
        (f"{SCHEMAS}/{name}", schema(name)) for name in ("spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")
    ]
    registry = jsonschema_rs.Registry(others)
    jsonschema_rs.validator_for(schema("bom-1.6.SNAPSHOT.schema.json"), registry=registry).validate(document)
    return document


def test_the_bill_of_a_bento_lists_packages_model_files_and_image() -> None:
    """Versions come from its lock file or its constraints. Files have hashes; compiled files are left out."""
    found = bill("b:1")
    assert (found["metadata"]["component"]["name"], found["metadata"]["component"]["version"]) == ("b", "1")
    kinds: dict[str, dict[str, Any]] = {}
    for each in found["components"]:
        kinds.setdefault(each["type"], {})[each["name"]] = each
    assert {name: each.get("version") for name, each in kinds["library"].items()} == {
        "torch": "2.13.0",
        "numpy": "2.4.6",
        "./wheels/own.whl": None,
    }
    assert kinds["library"]["torch"]["purl"] == "pkg:pypi/torch@2.13.0"
    assert kinds["container"]["python"]["version"] == "3.11-slim-bookworm"
    assert {"src/service.py", "bento.yaml"} <= kinds["file"].keys()
    assert not [name for name in kinds["file"] if "__pycache__" in name]
    assert kinds["file"]["src/service.py"]["hashes"] == [
        {"alg": "SHA-256", "content": hashlib.sha256(b"answer = 1\n").hexdigest()}
    ]
    (model,) = kinds["machine-learning-model"].values()
    weights = {each["name"]: each["hashes"][0]["content"] for each in model["components"]}["weights.safetensors"]
    assert weights == hashlib.sha256(b"weights").hexdigest()


def test_the_bill_of_this_installation_lists_packages_and_their_dependencies(tmp_path: Path) -> None:
    found = bill()
    versions = {each["name"]: each["version"] for each in found["components"]}
    assert versions["pydantic"] == version("pydantic")
    needs = {each["ref"]: each.get("dependsOn", []) for each in found["dependencies"]}
    assert f"pkg:pypi/pydantic-core@{version('pydantic_core')}" in needs[f"pkg:pypi/pydantic@{version('pydantic')}"]
    written = tmp_path / "sbom.json"
    assert CliRunner().invoke(app, ["sbom", "--output", str(written)]).exit_code == 0
    assert json.loads(written.read_text())["bomFormat"] == "CycloneDX"


def test_an_unknown_bento_is_named() -> None:
    """Every command names an unknown Bento this way."""
    done = CliRunner().invoke(app, ["sbom", "b:9"])
    assert "there is no Bento b:9" in str(done.exception)


def test_the_bill_gives_the_target_of_a_link_but_no_hash_of_its_content(store: Path, tmp_path: Path) -> None:
    """Bills are handed to others, who could guess a secret from its hash.

    A pipe is not a file, and the command does not wait for it.
    """
    (tmp_path / "secret").write_text("hunter2")
    for folder in ("bentos/b/1/src", "models/m/1"):
        (store / folder / "innocent.txt").symlink_to(tmp_path / "secret")
        os.mkfifo(store / folder / "pipe")
    found = bill("b:1")
    (model,) = [each for each in found["components"] if each["type"] == "machine-learning-model"]
    for name, components in (("src/innocent.txt", found["components"]), ("innocent.txt", model["components"])):
        (link,) = [each for each in components if each["name"] == name]
        assert "hashes" not in link
        assert link["properties"] == [{"name": "kanaria:link", "value": str(tmp_path / "secret")}]
    assert hashlib.sha256(b"hunter2").hexdigest() not in json.dumps(found)
    assert "pipe" not in json.dumps(found)
