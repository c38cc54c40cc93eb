"""A user's folder whose files have the names of our packages: none is imported in place of ours."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.stack import Kanaria

# Like BentoML's first example: text in, a dictionary out, no model in the store.
SERVICE = """
import bentoml

@bentoml.service
class Summary:
    @bentoml.api
    def summarize(self, text: str) -> dict:
        return {"summary": text[:20], "length": len(text)}
"""
BENTOFILE = "service: service:Summary\nname: summary\ninclude: [service.py]\npython: {lock_packages: false}\n"
NOT_OURS = "raise RuntimeError('this belongs to somebody else')\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "hers"
    made.mkdir()
    (made / "service.py").write_text(SERVICE)
    (made / "bentofile.yaml").write_text(BENTOFILE)
    for name in ("rollout", "kanaria"):
        (made / f"{name}.py").write_text(NOT_OURS)
    for name in ("contract", "monitoring", "loadtest"):
        (made / name).mkdir()
        (made / name / "__init__.py").write_text(NOT_OURS)
    return made


@pytest.fixture
def stack(tmp_path: Path, require_program: Callable[[str], str]) -> Iterator[Kanaria]:
    require_program("envoy")
    made = Kanaria.at(tmp_path, tmp_path / "bentoml", KANARIA_METRICS="scrape")
    yield made
    made("down")


def in_folder(
    folder: Path, kanaria: Kanaria, *command: str, has_proxy: bool = True
) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in kanaria.environment.items() if has_proxy or "proxy" not in name.lower()}
    environment = {**os.environ, **own}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=400
    )


def test_files_with_our_package_names_do_not_affect_commands(folder: Path, stack: Kanaria) -> None:
    """Every command works there, and so does every process that it starts."""
    console = str(Path(sys.executable).parent / "kanaria")
    bentoml = str(Path(sys.executable).parent / "bentoml")
    built = in_folder(folder, stack, bentoml, "build", "--version", "v1", has_proxy=False)  # it installs what it needs
    assert built.returncode == 0, built.stderr
    up = in_folder(folder, stack, console, "up", "summary:v1")
    assert up.returncode == 0, up.stdout + up.stderr
    assert "the gateway passes every path of summary:v1 but /metrics; its manifest names /summarize" in up.stdout
    status = stack.until(lambda status: status["stable"]["health"] == "ready")
    assert status["stable"]["tag"] == "summary:v1"
    for arguments in (["status"], ["history"], ["ledger", "backup"]):
        done = in_folder(folder, stack, console, *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    checked = in_folder(folder, stack, console, "validate", "summary:v1")
    assert checked.returncode == 0, checked.stderr
    assert "summary:v1 does not keep the model contract; it can be released as it is" in checked.stdout
    assert "judged: errors, " in checked.stdout
    assert "only versions that keep the model contract or an `answers` section count them" in checked.stdout
    stack.kill("controller")
    stack.until(lambda status: status["stable"]["health"] == "ready")
    down = in_folder(folder, stack, console, "down")
    assert down.returncode == 0, down.stderr


def test_the_module_runs_from_a_folder_with_our_package_names(folder: Path, stack: Kanaria) -> None:
    """`python -P -m kanaria` always works, and without `-P` it works if no file there is called `kanaria`."""
    safe = in_folder(folder, stack, sys.executable, "-P", "-m", "kanaria", "history")
    assert "there is no ledger yet" in safe.stderr
    (folder / "kanaria.py").unlink()
    plain = in_folder(folder, stack, sys.executable, "-m", "kanaria", "history")
    assert "there is no ledger yet" in plain.stderr
