"""setup.sh finds a suitable Python, or says what it saw and what to do. The Pythons here only print a version."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.utils import canonicalize_name

from kanaria.stack.environments import _uv
from tests.support.extras import declared
from tests.support.paths import ROOT
from tests.support.wheels import write_wheel

TOOLS = ("sh", "awk", "sed", "cat", "cksum", "rm", "ls", "readlink", "uname", "grep", "cut", "dirname")

QUIET = "--quiet --disable-pip-version-check"
LOCKED = "--require-hashes --no-deps -r .venv/requirements.txt"
OWN = "--no-deps --no-build-isolation --editable ."


class Machine:
    """A project to set up, and a PATH with only what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.project, self.bin = folder / "project", folder / "bin"
        self.project.mkdir()
        self.bin.mkdir()
        for name in ("setup.sh", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, self.project)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or "")

    def script(self, path: Path, text: str) -> None:
        """Write a program."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def python(self, name: str, version: str, *, has_venv: bool = True) -> None:
        """Put an interpreter on the PATH. It makes environments in which pip does nothing."""
        made = f'mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo {version} >"$3/pyvenv.cfg"' if has_venv else "exit 1"
        for tool in ("mkdir", "cp"):
            if not (self.bin / tool).exists():
                (self.bin / tool).symlink_to(shutil.which(tool) or "")
        text = f'case "$*" in *version_info*) echo {version};; *ensurepip*) {"exit 0" if has_venv else "exit 1"};;'
        self.script(self.bin / name, f'{text} "-m venv "*) {made};; *"-m pip "*) echo "pip: $*";; *) exit 1;; esac')

    def set_up(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "setup.sh"],
            cwd=self.project,
            env={"PATH": str(self.bin), "EXTRAS": "dev", **variables},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_newest_suitable_python_is_used_and_named(machine: Machine) -> None:
    """One line names it. A newer Python that the project does not support is ignored."""
    for minor in (10, 11, 12, 14):
        machine.python(f"python3.{minor}", f"3.{minor}.1")
    machine.python("python3", "3.14.1")
    done = machine.set_up()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "setup: using python3.12 (3.12.1)"
    assert done.stdout.splitlines()[-1] == "setup: ready"
    assert done.stdout.splitlines()[-3:-1] == [
        f"pip: -m pip {QUIET} install {LOCKED}",
        f"pip: -m pip {QUIET} install {OWN}",
    ]


def test_the_systems_python_is_used_whatever_its_name(machine: Machine) -> None:
    """Debian 13 has a python3, and a python3.13 only together with it."""
    machine.python("python3", "3.13.5")
    assert "setup: using python3 (3.13.5)" in machine.set_up().stdout


def test_a_python_that_the_user_names_wins(machine: Machine) -> None:
    """`make setup PYTHON=python3.11` works although a newer one exists."""
    machine.python("python3.13", "3.13.5")
    machine.python("python3.11", "3.11.2")
    assert "setup: using python3.11 (3.11.2)" in machine.set_up(PYTHON="python3.11").stdout


@pytest.mark.parametrize(
    ("name", "saw"), [("python3.9", "python3.9 is Python 3.9.2"), ("python3.14", "python3.14 is Python 3.14.0")]
)
def test_an_unsuitable_python_that_the_user_names_is_refused(machine: Machine, name: str, saw: str) -> None:
    """It is too old or too new, and the message lists the suitable versions."""
    machine.python("python3.9", "3.9.2")
    machine.python("python3.14", "3.14.0")
    done = machine.set_up(PYTHON=name)
    assert done.returncode == 2
    assert done.stderr == (
        "setup: the named Python is not supported: use 3.11 to 3.13\n"
        f"  saw: {saw}\n  do:  name another, or leave PYTHON out\n"
    )


def test_a_python_that_the_user_names_and_that_does_not_run_is_refused(machine: Machine) -> None:
    """After a typing mistake, no other Python is used instead."""
    machine.python("python3", "3.13.5")
    done = machine.set_up(PYTHON="/usr/lib/pyton3")
    assert done.returncode == 2
    assert "saw: PYTHON=/usr/lib/pyton3\n" in done.stderr


def test_without_a_python_the_error_says_how_to_get_one(machine: Machine) -> None:
    """It has the package names of Debian 12 and 13, Ubuntu 24.04 and Homebrew."""
    done = machine.set_up()
    assert done.returncode == 2
    assert "saw: no python3 on the PATH\n" in done.stderr
    assert "apt-get install python3 python3-venv; macOS: brew install python@3.13" in done.stderr


def test_unsuitable_pythons_are_listed(machine: Machine) -> None:
    """The machine has an old and a new one. A shim without an interpreter behind it does not count."""
    machine.python("python3", "3.9.2")
    machine.python("python", "2.7.18")
    machine.script(machine.bin / "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    done = machine.set_up()
    assert (done.returncode, done.stdout) == (2, "")
    assert "setup: no supported Python was found: use 3.11 to 3.13\n" in done.stderr
    assert "saw: python3 is 3.9.2, python is 2.7.18\n" in done.stderr


def test_a_python_without_venv_names_the_package(machine: Machine) -> None:
    """Debian and Ubuntu split it off from Python."""
    machine.python("python3", "3.13.5", has_venv=False)
    done = machine.set_up()
    assert done.returncode == 2
    assert done.stderr == (
        "setup: Python cannot make a virtual environment\n"
        "  saw: python3 (3.13.5) has no module venv or ensurepip\n"
        "  do:  install it (Debian, Ubuntu: apt-get install python3-venv), or another Python: "
        "make setup PYTHON=/path/to/python\n"
    )


def test_nothing_is_done_when_nothing_changed(machine: Machine) -> None:
    """The extras are remembered too, so that `make check` does not install what was left out."""
    machine.python("python3", "3.13.5")
    machine.set_up(EXTRAS="")
    environment = {"PATH": str(machine.bin)}
    done = subprocess.run(
        ["sh", "setup.sh"], cwd=machine.project, env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    with (machine.project / "requirements.lock").open("a") as lock:
        lock.write("# for: base\nmore==1.0\n")
    done = subprocess.run(
        ["sh", "setup.sh"], cwd=machine.project, env=environment, capture_output=True, text=True, check=True
    )
    assert f"pip: -m pip {QUIET} install {LOCKED}\n" in done.stdout
    assert (machine.project / ".venv/requirements.txt").read_text().endswith("more==1.0\n")


@pytest.mark.parametrize(
    ("old", "why"),
    [
        ("echo 3.10.4", "it has Python 3.10.4; 3.11 to 3.13 are supported"),
        ("exit 127", "its Python no longer runs"),
        (
            'case "$*" in *version_info*) echo 3.12.1;; *) exit 1;; esac',
            "it has no pip, because its creation was interrupted",
        ),
    ],
)
def test_an_unsuitable_environment_is_made_again(machine: Machine, old: str, why: str) -> None:
    """The system's Python was replaced, or the project now needs another one; one line says so."""
    machine.python("python3", "3.13.5")
    machine.script(machine.project / ".venv/bin/python", old)
    (machine.project / ".venv/pyvenv.cfg").touch()
    done = machine.set_up()
    assert done.returncode == 0
    assert done.stdout.splitlines()[:2] == [f"setup: making .venv again: {why}", "setup: using python3 (3.13.5)"]


def test_an_environment_of_another_python_than_the_named_one_is_made_again(machine: Machine) -> None:
    """`PYTHON=` overrides the existing environment."""
    machine.python("python3.13", "3.13.5")
    machine.python("python3.12", "3.12.3")
    machine.set_up()
    done = machine.set_up(PYTHON="python3.12")
    assert done.stdout.splitlines()[:2] == [
        "setup: making .venv again: it has Python 3.13.5; 3.12.3 was asked for",
        "setup: using python3.12 (3.12.3)",
    ]


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_the_setup_never_removes_what_it_did_not_make(machine: Machine, tmp_path: Path, kind: str) -> None:
    """Examples are a link to somebody else's environment and a folder with other content."""
    machine.python("python3", "3.13.5")
    elsewhere = tmp_path / "elsewhere"
    machine.script(elsewhere / "bin/python", "echo 3.9.2")
    if kind == "link":
        (elsewhere / "pyvenv.cfg").touch()
        (machine.project / ".venv").symlink_to(elsewhere)
    else:
        shutil.copytree(elsewhere, machine.project / ".venv")
    done = machine.set_up()
    assert done.returncode == 2
    assert (machine.project / ".venv/bin/python").exists()
    assert {"link": f"saw: .venv is a link to {elsewhere}", "folder": "is in the way"}[kind] in done.stderr


def test_an_installed_uv_is_used(machine: Machine) -> None:
    """It gets the newest suitable Python, or the version range if there is none; `UV=` disables it."""
    for tool in ("mkdir", "chmod", "touch"):
        (machine.bin / tool).symlink_to(shutil.which(tool) or "")
    python = 'printf "#!/bin/sh\\necho 3.13.9" >"$6/bin/python"; chmod +x "$6/bin/python"'
    made = f'mkdir -p "$6/bin"; touch "$6/pyvenv.cfg"; {python}'
    answers = f'--version) echo "uv 0.13.9 (abc)";; venv) echo "$5"; {made};; *) echo "uv: $*";;'
    machine.script(machine.bin / "uv", f'case "$1" in {answers} esac')
    done = machine.set_up()
    assert done.stdout.splitlines()[:2] == ["setup: using uv 0.13.9 with its own Python", ">=3.11,<3.14"]
    assert f"uv: pip install --quiet --python .venv/bin/python {LOCKED}\n" in done.stdout
    shutil.rmtree(machine.project / ".venv")
    machine.python("python3.12", "3.12.3")
    assert machine.set_up().stdout.splitlines()[:2] == [
        "setup: using uv 0.13.9 with python3.12 (3.12.3)",
        "python3.12",
    ]
    shutil.rmtree(machine.project / ".venv")
    assert machine.set_up(UV="").stdout.splitlines()[0] == "setup: using python3.12 (3.12.3)"


def test_if_uv_cannot_download_a_python_the_error_says_how_to_get_one(machine: Machine) -> None:
    """The download fails, and the message lists the Pythons on the PATH."""
    machine.python("python3", "3.9.2")
    machine.script(machine.bin / "uv", 'case "$1" in --version) echo "uv 0.13.9";; *) exit 2;; esac')
    done = machine.set_up()
    assert done.returncode == 2
    assert "saw: its message above; python3 is 3.9.2\n" in done.stderr
    assert "do:  install one (Debian 12 and 13, Ubuntu 24.04: apt-get install python3 python3-venv;" in done.stderr


def test_a_compiler_is_required_where_a_wheel_is_missing(machine: Machine) -> None:
    """This is so on Linux with an arm64 processor, and only for the load generator."""
    machine.python("python3", "3.13.5")
    (machine.bin / "uname").unlink()
    machine.script(machine.bin / "uname", 'case "$1" in -m) echo aarch64;; *) echo Linux;; esac')
    done = machine.set_up(EXTRAS="loadtest")
    assert done.returncode == 2
    assert "saw: no cc on the PATH; hdrhistogram has no wheel for Linux on arm64\n" in done.stderr
    assert machine.set_up(EXTRAS="dev").returncode == 0
    machine.script(machine.bin / "cc", "true")
    assert machine.set_up(EXTRAS="loadtest").returncode == 0


def pins_for(machine: Machine, extras: str) -> dict[str, str]:
    """What the set-up installs with these extras: the lines of each package by its name."""
    machine.python("python3", "3.13.5")
    assert machine.set_up(EXTRAS=extras).returncode == 0
    text = (machine.project / ".venv/requirements.txt").read_text().replace("\\\n", " ")
    return {line.partition("==")[0]: line for line in text.splitlines()}


@pytest.mark.parametrize("extras", ["", "dev", "judge,dev", "all,dev", "serve", "bench"])
def test_every_package_of_an_extra_is_locked_with_hashes(extras: str, machine: Machine) -> None:
    """Each declared package has the version of constraints.txt, and every line has a hash."""
    (machine.bin / "cc").symlink_to(shutil.which("true") or "")
    pins = pins_for(machine, extras)
    named = [canonicalize_name(each.name) for each in declared(*filter(None, extras.split(",")))]
    assert set(named) - pins.keys() - {"torch"} == set()  # that one is installed first, from its own file
    assert [line for line in pins.values() if "--hash=sha256:" not in line] == []
    pinned = re.findall(r"^([\w.-]+)==([^;\s]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    known = {canonicalize_name(name): found for name, found in pinned}
    seen = {name: line.split()[0].partition("==")[2] for name, line in pins.items()}
    assert {name: found for name, found in seen.items() if known.get(name, found) != found} == {}


def test_the_base_has_no_pin_of_an_extra(machine: Machine) -> None:
    """An installation for the judge alone gets no server."""
    assert pins_for(machine, "").keys().isdisjoint({"torch", "bentoml", "locust", "evidently", "pytest"})


@pytest.mark.needs("serve")  # which installs uv
def test_a_package_that_was_replaced_on_the_index_is_refused(tmp_path: Path) -> None:
    """Neither pip nor uv accepts the same name and version with other content."""
    wheels = tmp_path / "wheels"
    good = write_wheel(wheels, "tiny", "1.0", "VERSION = 1\n")
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    (tmp_path / "requirements.txt").write_text(f"tiny==1.0 --hash=sha256:{digest}\n")
    with ZipFile(good, "a") as changed:
        changed.writestr("evil.pth", "import os")
    where = ["--no-index", "--find-links", str(wheels), "--target", str(tmp_path / "there")]
    locked = ["--require-hashes", "--no-deps", "-r", str(tmp_path / "requirements.txt")]
    for installer in ([sys.executable, "-m", "pip", "install"], [_uv() or "uv", "pip", "install"]):
        done = subprocess.run([*installer, *locked, *where], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "hash" in (done.stdout + done.stderr).lower()
        assert not (tmp_path / "there" / "tiny.py").exists()
