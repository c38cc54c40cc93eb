"""A warning appears for a Bento whose code does not import the Bento's own folder."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kanaria.cli import app
from kanaria.settings import Settings
from kanaria.stack.shadowed import shadowed

MANIFEST = "name: b\nversion: '1'\nschema: {routes: [{route: /answer}]}\n"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sources of the Bento b:1.

    A package `helpers`, a module `tools` and a folder `plain` are installed beside its Python.
    """
    installed = tmp_path / "installed"
    for file in ("helpers/__init__.py", "tools.py", "plain/inner.py"):
        (installed / file).parent.mkdir(parents=True, exist_ok=True)
        (installed / file).write_text("")
    monkeypatch.setattr(sys, "path", [*sys.path, str(installed)])
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "store"))
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path / "state"))
    bento = tmp_path / "store" / "bentos" / "b" / "1"
    (bento / "src").mkdir(parents=True)
    (bento / "bento.yaml").write_text(MANIFEST)
    return bento / "src"


def found(sources: Path, *files: str) -> list[str]:
    for file in files:
        (sources / file).parent.mkdir(parents=True, exist_ok=True)
        (sources / file).write_text("")
    return [name for name, _ in shadowed(Settings(), "b:1", sources)]


@pytest.mark.parametrize(
    "file", ["helpers/a.py", "helpers/deep/a.py", "tools/a.py", "email/a.py", "test/a.py", "time/a.py", "numpy/a.py"]
)
def test_a_folder_hidden_by_an_installed_package_is_reported(sources: Path, file: str) -> None:
    """The package may be Kanaria's, in the standard library, or built into Python.

    Python itself imports the same one.
    """
    name = file.partition("/")[0]
    assert found(sources, file) == [name]
    (other,) = (other for _, other in shadowed(Settings(), "b:1", sources))
    code = f"import sys; sys.path.insert(0, {str(sources)!r}); import {name}; print(getattr({name}, '__file__', None))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": sys.path[-1]}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in (other, "None")


@pytest.mark.parametrize(
    "files",
    [
        ("helpers/__init__.py", "helpers/a.py"),
        ("plain/a.py",),  # two folders without `__init__.py` form one package, which is searched here first
        ("helpers/data.csv",),
        ("of_its_own/a.py",),
        ("help-ers/a.py",),
        (),
    ],
)
def test_any_other_folder_is_not_reported(sources: Path, files: tuple[str, ...]) -> None:
    assert found(sources, *files) == []


def test_the_warning_depends_on_the_environment_of_the_bento(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Bento with its own packages does not see Kanaria's, but it sees the standard library."""
    monkeypatch.setenv("KANARIA_RUNTIME", "venv")
    assert found(sources, "helpers/a.py", "email/a.py") == ["email"]


def test_validate_warns_and_says_that_the_version_can_be_released(sources: Path) -> None:
    """Its code may never import the folder."""
    assert found(sources, "helpers/a.py") == ["helpers"]
    done = CliRunner().invoke(app, ["validate", "b:1"])
    assert done.exit_code == 0
    assert "`import helpers` in b:1 does not import its own folder helpers" in done.stderr
    assert "add an empty helpers/__init__.py" in done.stderr
    assert "it can be released as it is" in done.output
