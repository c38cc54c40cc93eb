"""Two versions of one service each get their own version of a library from the package index."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from kanaria.stack.environments import _uv
from kanaria.stack.temporary_server import temporary_server
from tests.support.absence import leave_out
from tests.support.stack import Kanaria
from tests.support.wheels import write_bento

# Written only with BentoML. The library that the first service imports is not installed beside Kanaria.
SIZES = """
from importlib.metadata import version
import bentoml

with bentoml.importing():
    import humanize

@bentoml.service(name="sizes")
class Service:
    @bentoml.api
    def size(self, number: int) -> dict:
        return {"text": humanize.naturalsize(number), "humanize": version("humanize")}
"""
PLAIN = """
import bentoml

@bentoml.service(name="sizes")
class Service:
    @bentoml.api
    def size(self, number: int) -> dict:
        return {"text": str(number)}
"""
CUT_OFF = "--index-url http://127.0.0.1:9/simple"


def build(folder: Path, home: Path, version: str, code: str, *packages: str) -> None:
    """`bentoml build` of a service with these packages."""
    folder.mkdir(exist_ok=True)
    (folder / "service.py").write_text(code)
    python = {"lock_packages": False, "packages": ["bentoml", *packages]}
    described = {"service": "service:Service", "name": "sizes", "include": ["service.py"], "python": python}
    (folder / "bentofile.yaml").write_text(json.dumps(described))  # JSON is valid YAML
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "--version", version],
        cwd=folder,
        env={**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def index(tmp_path: Path) -> None:
    """Skip the test if the package index that is configured here cannot be reached."""
    uv = _uv()
    if uv is None:
        leave_out("uv is not installed")
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("humanize==4.9.0\n")
    command = [uv, "pip", "compile", "--quiet", str(wanted)]
    if subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=60).returncode:
        leave_out("no package index is reached from here")


@pytest.fixture
def stack(tmp_path: Path, require_program: Callable[[str], str]) -> Iterator[Kanaria]:
    require_program("envoy")
    made = Kanaria.at(tmp_path, tmp_path / "bentoml", KANARIA_METRICS="scrape")
    for name in [name for name in made.environment if "proxy" in name.lower()]:
        del made.environment[name]  # packages come through the machine's own proxy
    yield made
    made("down")


def size(url: str, headers: dict[str, str]) -> dict[str, str]:
    """The answer of a version to a caller with its secret; without the secret it answers 403."""
    asked = {"json": {"number": 12345}, "timeout": 60}
    assert httpx.post(f"{url}/size", **asked, trust_env=False).status_code == 403
    answer: dict[str, str] = (
        httpx.post(f"{url}/size", **asked, headers=headers, trust_env=False).raise_for_status().json()
    )
    return answer


@pytest.mark.usefixtures("index")
def test_two_versions_serve_with_two_versions_of_a_library(
    stack: Kanaria, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both run at the same time."""
    home = tmp_path / "bentoml"
    build(tmp_path / "hers", home, "v1", SIZES, "humanize==4.9.0")
    build(tmp_path / "hers", home, "v2", SIZES, "humanize==4.12.0")
    up = stack.ok("up", "sizes:v1")
    assert "sizes:v1 gets its own environment: it needs humanize==4.9.0, which is not installed here" in up
    assert "the environment of sizes:v1 is ready" in up
    stable = json.loads((stack.home / "versions/sizes@v1.json").read_text())["port"]
    with temporary_server(stack.settings(monkeypatch), "sizes:v2", say=lambda _: None) as canary:
        headers = canary.backend.headers
        assert size(canary.backend.url, headers) == {"text": "12.3 kB", "humanize": "4.12.0"}
        assert size(f"http://127.0.0.1:{stable}", headers) == {"text": "12.3 kB", "humanize": "4.9.0"}


def test_a_version_that_cannot_be_installed_is_rolled_back_with_the_reason(stack: Kanaria, tmp_path: Path) -> None:
    """It is never loaded; stable, whose packages are installed here, keeps serving."""
    home = tmp_path / "bentoml"
    build(tmp_path / "hers", home, "v1", PLAIN)
    write_bento(home, "sizes:absent", "--no-index", "humanize==99.9", "bentoml")
    write_bento(home, "sizes:cut-off", CUT_OFF, "humanize==4.11.0", "bentoml")
    up = stack.ok("up", "sizes:v1")
    assert "environment" not in up
    for version, words in (("absent", "humanize==99.9"), ("cut-off", "the package index could not be reached")):
        stack.ok("release", f"sizes:{version}")
        status = stack.until(lambda status: status["release"]["outcome"] is not None)
        assert status["release"]["outcome"] == "rolled_back"
        reason = status["release"]["decisions"][-1]["reason"]
        assert f"sizes:{version} did not start: InstallError: the packages of sizes:{version}" in reason
        assert words in reason
        stack.until(lambda status: status["canary"] is None)
    stack.until(lambda status: status["stable"]["health"] == "ready")
