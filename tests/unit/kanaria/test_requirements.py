"""What a Bento requires, and whether this Python has it."""

import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from kanaria.settings import Settings
from kanaria.stack import model_server
from kanaria.stack.requirements import OWN_PYTHON, missing, wanted_by
from kanaria.stack.version_process import MODULE, server_command
from tests.support.paths import ROOT
from tests.support.wheels import write_bento

HTTPX = version("httpx")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["# a comment", "", "--index-url https://example.org/simple", "--extra-index-url https://example.org/more"],
        [f"httpx=={HTTPX}  # pinned"],
        [f"httpx=={HTTPX} \\", "    --hash=sha256:00", f"pydantic=={version('pydantic')} --hash=sha256:00"],
        ["HTTPX>=0.1", "Prometheus_Client"],
        ["absent-here==1; python_version < '3'", "absent-here; sys_platform == 'nowhere'"],
        ["httpx[no-such-extra]>=0.1,<99", "-c constraints.txt"],
    ],
)
def test_installed_packages_are_not_missing(lines: list[str], home: Path) -> None:
    """Comments, options, hashes, continued lines, other spellings and markers for other machines require nothing."""
    write_bento(home, "m:v1", *lines)
    assert missing(wanted_by("m:v1")) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("absent-here", "absent-here, which is not installed here"),
        ("httpx==0.0.1", f"httpx==0.0.1, but {HTTPX} is installed here"),
        ("httpx @ https://example.org/httpx.whl", "https://example.org/httpx.whl"),
        ("git+https://example.org/httpx.git", "git+https"),
        ("./wheels/httpx-0.1-py3-none-any.whl", "./wheels/httpx-0.1"),
        ("-r others.txt", "-r others.txt"),
        ("-e .", "-e ."),
        ("httpx===", "httpx==="),
        ("hypothesis[pandas]==0.1", "hypothesis"),
    ],
)
def test_packages_that_are_not_installed_are_named(line: str, words: str, home: Path) -> None:
    """This includes what only an installer can resolve: a path, an address, another file."""
    write_bento(home, "m:v1", f"httpx=={HTTPX}", line)
    assert words in str(missing(wanted_by("m:v1")))


def test_packages_of_an_extra_are_required(home: Path) -> None:
    """`hypothesis[redis]` needs a package that `hypothesis` alone does not need."""
    write_bento(home, "m:v1", "hypothesis[redis]")
    assert "redis" in str(missing(wanted_by("m:v1")))


def test_a_lock_file_counts_and_not_its_source(home: Path) -> None:
    """The Bento was built and tested with the lock file."""
    write_bento(home, "m:v1", "httpx", lock=("httpx==0.0.1",))
    assert "httpx==0.0.1" in str(missing(wanted_by("m:v1")))


def test_a_bento_without_requirements_requires_nothing(home: Path) -> None:
    """A missing requirements file also means none."""
    (write_bento(home, "m:v1") / "env/python/requirements.txt").unlink()
    assert missing(wanted_by("m:v1")) is None


def test_a_file_that_is_not_text_is_left_to_the_installer(home: Path) -> None:
    """The reason says what is wrong with the file."""
    (write_bento(home, "m:v1") / "env/python/requirements.txt").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in str(missing(wanted_by("m:v1")))


def test_options_of_the_bentos_own_installer_are_known(home: Path) -> None:
    """BentoML writes them like this for a Bento with its own Dockerfile, with the wheels that it contains."""
    python = write_bento(home, "m:v1", "httpx") / "env/python"
    (python / "install.sh").write_text("#!/bin/sh\nPIP_ARGS=(--constraint '../../src/constraints.txt' --no-index)\n")
    (python / "wheels").mkdir()
    (python / "wheels/own-1-py3-none-any.whl").touch()
    (python / "version.txt").write_text("3.10.4")
    wanted = wanted_by("m:v1")
    assert wanted.options == ("--constraint", "../../src/constraints.txt", "--no-index")
    assert [path.name for path in wanted.wheels] == ["own-1-py3-none-any.whl"]
    assert (wanted.python, wanted.folder) == ("3.10", python)


@pytest.mark.parametrize(
    ("lines", "names_it"),
    [
        (["bentoml==1.4.39"], True),
        (["BentoML>=1.2"], True),
        (["bentoml[io]"], True),
        (["bentoml @ git+https://example.org/b.git"], True),
        (["./wheels/bentoml-1.4.39.tar.gz"], True),
        (["bentoml-extras==1"], False),
        (["httpx"], False),
    ],
)
def test_whether_a_bento_requires_bentoml(lines: list[str], names_it: bool, home: Path) -> None:
    """If it does not, its environment gets BentoML anyway."""
    write_bento(home, "m:v1", *lines)
    assert wanted_by("m:v1").names("bentoml") is names_it


@pytest.mark.needs("serve")
def test_the_example_runs_in_kanarias_own_python(home: Path, tmp_path: Path) -> None:
    """Everything that its bentofile.yaml asks for is here, so nothing is installed and nothing starts more slowly."""
    packages = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["python"]["packages"]
    write_bento(home, "digits:v1", *packages, f"bentoml=={version('bentoml')}", python=OWN_PYTHON)
    command = server_command(Settings(home=tmp_path / "state"), "digits:v1", 3000)
    assert command[-7:] == ["bentoml", "serve", "digits:v1", "--host", "127.0.0.1", "--port", "3000"]


@pytest.mark.parametrize(
    ("runtime", "line", "python", "is_own"),
    [
        ("auto", "httpx", "", False),
        ("auto", "absent-here", "", True),
        ("auto", "httpx", "3.1", True),  # the output shows that it runs on another Python
        ("shared", "absent-here", "3.1", False),
        ("venv", "httpx", "", True),
    ],
)
def test_which_process_serves(runtime: str, line: str, python: str, is_own: bool, home: Path) -> None:
    """BentoML serves directly, or a process prepares an environment first."""
    write_bento(home, "m:v1", line, python=python)
    settings = Settings.model_validate({"home": home / "state", "runtime": runtime})
    assert (MODULE in server_command(settings, "m:v1", 3000)) is is_own


def test_an_unreadable_bento_is_reported_in_its_log(home: Path, tmp_path: Path) -> None:
    """The controller checks it in every tick, so the check must not fail there."""
    (write_bento(home, "m:v1") / "bento.yaml").write_text("{")
    assert MODULE in server_command(Settings(home=tmp_path / "state"), "m:v1", 3000)


@pytest.mark.parametrize(("runtime", "is_own"), [("auto", False), ("venv", True)])
def test_a_model_of_the_contract_runs_with_kanarias_packages(home: Path, runtime: str, is_own: bool) -> None:
    """BentoML locks the packages that a Bento names. A lock of no packages lacks those of the service."""
    bento = write_bento(home, "m:v1", "bentoml", lock=("bentoml==0.0.1", "absent-here==1"))
    manifest = bento / "bento.yaml"
    manifest.write_text(f"{manifest.read_text()}args: {{implementation: 'own.model:Own'}}\n")
    settings = Settings.model_validate({"home": home / "state", "runtime": runtime})
    command = server_command(settings, "m:v1", 3000)
    assert (MODULE in command) is is_own
    assert (model_server.MODULE in command) is (not is_own and sys.platform == "linux")


HOSTILE = {
    "endless extras": "numpy[" + ",".join(f"e{number}" for number in range(100_000)) + "]",
    "many lines of extras": "\n".join(f"httpx[{'a' * 9}{number},{'b' * 900},{'c' * 900}]" for number in range(2000)),
    "a long line": "a" * 1_000_000,
    "a deep marker": "numpy; " + "(" * 100_000,
    "a deep marker within the limit": "numpy; " + "(" * 1900,
    "a meaningless marker": "numpy; python_version ~= 'abc'",
    "endless packages": "\n".join(f"numpy>=0.{number}" for number in range(200_000)),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_absurd_requirements_are_left_to_the_versions_own_process(text: str, home: Path) -> None:
    """The control loop reads them: it stopped for an hour, or failed in every tick."""
    write_bento(home, "m:v1", *text.split("\n"))
    found = missing(wanted_by("m:v1"))
    assert found is None or len(found) < 300
