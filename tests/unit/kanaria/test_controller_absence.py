"""What a command says of a controller that does not listen: asked of real keepers."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kanaria.stack.controller_absence import controller_absence
from kanaria.stack.locks import locked
from kanaria.stack.supervision import Program
from rollout.control.commands import StartRelease
from rollout.ledger.ledger import Ledger
from tests.support.paths import ROOT
from tests.support.processes import Kept, until
from tests.support.releases import LIVE, digits_world

CRASHES = (sys.executable, "-c", "raise SystemExit(3)")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    made.supervisor.start()
    yield made
    made.supervisor.shutdown()


def said(home: Path) -> str:
    found = controller_absence(home)
    return f"{found.saw}\n{found.do}" if found else ""


def test_one_that_was_killed_is_started_again_by_the_keeper(kept: Kept) -> None:
    """Nobody has to start the stack; where the system killed it, memory may have been the reason."""
    pid = kept.run("controller")
    assert re.match(f"its process, {pid}, was started .* ago and does not listen yet\\n", said(kept.home))
    os.kill(pid, signal.SIGKILL)
    again = kept.pid("controller", other_than=pid)
    words = until(lambda: str(again) in (now := said(kept.home)) and now)
    assert f"its process, {again}, was started" in words
    assert "does not listen yet; it has ended once unexpectedly, killed by SIGKILL\n" in words
    assert (f"tail {kept.home}/logs/controller.log" in words, "whether the machine was out of memory" in words) == (
        True,
        True,
    )


def test_one_that_a_signal_without_a_name_killed_is_said_to_be(kept: Kept) -> None:
    """The command ended with an error of Python's, for those of real time."""
    pid = kept.run("controller")
    os.kill(pid, 40)
    again = kept.pid("controller", other_than=pid)
    assert "unexpectedly, killed by signal 40\n" in until(lambda: str(again) in (now := said(kept.home)) and now)


def test_one_that_crashes_again_and_again_is_said_to(kept: Kept) -> None:
    """Since when it is down, how often it ended, how it did so last, and who starts it again."""
    kept.supervisor.add(Program("controller", CRASHES))
    wanted = (
        r"it has been down for \d\S* m?s; it has ended \d+ times unexpectedly, last with exit code 3; "
        rf"the keeper, process {kept.keeper}, restarts it\n"
    )
    words = until(lambda: re.match(wanted, now := said(kept.home)) and now)
    assert "memory" not in words


def test_where_no_keeper_lives_nobody_starts_it(kept: Kept) -> None:
    """What runs is taken over, so nothing is said of a first version. In a folder without a stack nothing is known."""
    kept.run("controller")
    kept.kill_keeper()
    assert said(kept.home) == (
        "there is no keeper to restart it\nrun `kanaria up`, which takes over what still runs and starts the rest"
    )
    kept.supervisor.start()
    assert controller_absence(kept.home / "elsewhere") is None


def test_a_command_that_is_at_work_is_waited_for(tmp_path: Path) -> None:
    """One that has the keeper's place, or none of the two yet."""
    with locked(tmp_path / "command.lock", doing="kanaria up", wait_s=0):
        assert said(tmp_path) == f"`kanaria up`, process {os.getpid()}, is running\nwait until it has ended"
        with locked(tmp_path / "keeper.lock", doing="kanaria down", wait_s=0):
            assert said(tmp_path).startswith("`kanaria down`, process ")


def typed(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kanaria", "--home", str(home), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_the_ledger_says_of_a_running_release_is_about_now_only_where_a_controller_runs(kept: Kept) -> None:
    """`why` and `history` read the ledger alone: they said what is waited for, where nobody did."""
    world, controller = digits_world(kept.home / "ledger.db")
    controller.execute(StartRelease("digits:v2", LIVE, "ann"))
    world.live(controller, 5)
    controller.close()
    for words in (("why",), ("history",)):
        noted = " ".join(typed(kept.home, *words).stderr.split())
        assert re.search(r"note: nothing is decided since \d\d:\d\d:\d\d UTC: no controller runs here", noted), noted
    assert "note" not in typed(kept.home, "why", "--json").stderr
    pid = kept.run("controller")
    assert typed(kept.home, "why").stderr == ""
    assert typed(kept.home, "history").stderr == ""
    kept.kill_keeper()
    os.kill(pid, signal.SIGKILL)
    noted = " ".join(typed(kept.home, "why").stderr.split())
    assert "the controller does not run. There is no keeper to restart it. Run `kanaria up`" in noted


def test_before_the_first_release_it_is_said_how_to_begin_one(tmp_path: Path) -> None:
    """It said to look at `kanaria history`, which is empty."""
    Ledger(tmp_path / "ledger.db").close()
    done = typed(tmp_path, "why")
    assert (done.returncode, "do:  start one: `kanaria release TAG`" in done.stderr) == (2, True), done.stderr


def test_a_command_does_not_wait_for_what_it_does_not_need() -> None:
    """Neither to know whether somebody starts the controller, nor for the words."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, kanaria.stack.controller_absence; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(done.stdout.split())
    assert "kanaria.stack.locks" in modules
    assert modules & {"psutil", "httpx", "asyncio", "numpy", "kanaria.stack.supervision"} == set()
