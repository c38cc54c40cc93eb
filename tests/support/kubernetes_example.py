"""The manifests of the digits in deploy/kubernetes, written by `kanaria kubernetes render`.

`python -m tests.support.kubernetes_example` writes them again.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from tests.support.paths import ROOT

DEPLOY = ROOT / "deploy/kubernetes"
MODELS: Mapping[str, Path] = {engine: DEPLOY / "overlays" / engine / "digits" for engine in ("argo", "flagger")}
COMMON = ("--namespace", "shop", "--gateway", "shop/shop", "--hostname", "digits.example.com")


def store(home: Path, *, tag: str = "digits:v2", manifest: Mapping[str, object] | None = None) -> dict[str, str]:
    """The environment of a command whose store has one Bento of the model contract, or one with another manifest."""
    folder = home / "bentos" / tag.replace(":", "/", 1)
    folder.mkdir(parents=True)
    contract = {"args": {"implementation": "examples.digits.model:Digits"}}
    (folder / "bento.yaml").write_text(yaml.safe_dump(dict(contract if manifest is None else manifest)))
    return os.environ | {"BENTOML_HOME": str(home)}


def render(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "kanaria", "kubernetes", "render", *arguments]
    return subprocess.run(command, env=dict(environment), cwd=ROOT, capture_output=True, text=True, check=False)


def write(environment: Mapping[str, str], engine: str, folder: Path) -> None:
    done = render(environment, "digits:v2", "--engine", engine, *COMMON, "--out", str(folder))
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    with TemporaryDirectory() as home:
        environment = store(Path(home))
        for engine, folder in MODELS.items():
            write(environment, engine, folder)
