"""What a command says about a controller that does not listen, with real keepers."""

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


def test_the_keeper_starts_a_killed_controller_again(kept: Kept) -> None:
    """Nobody has to start the stack. If the system sent SIGKILL, the message mentions memory as a possible reason."""
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


def test_a_signal_without_a_name_is_reported_by_its_number(kept: Kept) -> None:
    """Real-time signals have no name, and the command ended with a Python error."""
    pid = kept.run("controller")
    os.kill(pid, 40)
    again = kept.pid("controller", other_than=pid)
    assert "unexpectedly, killed by signal 40\n" in until(lambda: str(again) in (now := said(kept.home)) and now)


def test_a_controller_that_crashes_repeatedly_is_reported(kept: Kept) -> None:
    """The message says how long it has been down, how often and how it ended, and who starts it again."""
    kept.supervisor.add(Program("controller", CRASHES))
    wanted = (
        r"it has been down for \d\S* m?s; it has ended \d+ times unexpectedly, last with exit code 3; "
        rf"the keeper, process {kept.keeper}, restarts it\n"
    )
    words = until(lambda: re.match(wanted, now := said(kept.home)) and now)
    assert "memory" not in words


def test_without_a_keeper_nobody_starts_the_controller_again(kept: Kept) -> None:
    """What runs is taken over, so the advice mentions no first version.

    In a folder without a stack, nothing is known.
    """
    kept.run("controller")
    kept.kill_keeper()
    assert said(kept.home) == (
        "there is no keeper to restart it\nrun `kanaria up`, which takes over what still runs and starts the rest"
    )
    kept.supervisor.start()
    assert controller_absence(kept.home / "elsewhere") is None


def test_the_user_is_asked_to_wait_for_another_running_command(tmp_path: Path) -> None:
    """That command holds the keeper's lock, or neither lock yet."""
    with locked(tmp_path / "command.lock", doing="kanaria up", wait_s=0):
        assert said(tmp_path) == f"`kanaria up`, process {os.getpid()}, is running\nwait until it has ended"
        with locked(tmp_path / "keeper.lock", doing="kanaria down", wait_s=0):
            assert said(tmp_path).startswith("`kanaria down`, process ")


def typed(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kanaria", "--home", str(home), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_why_and_history_note_when_no_controller_decides(kept: Kept) -> None:
    """Both commands read only the ledger. They reported what the release waits for while no controller ran."""
    world, controller = digits_world(kept.home / "ledger.db")
    controller.execute(StartRelease("digits:v2", LIVE, "ann"))
    world.live(controller, 5)
    controller.close()
    for words in (("why",), ("history",)):
        noted = " ".join(typed(kept.home, *words).stderr.split())
        assert re.search(r"note: nothing was decided since \d\d:\d\d:\d\d UTC: no controller runs here", noted), noted
    assert "note" not in typed(kept.home, "why", "--json").stderr
    pid = kept.run("controller")
    assert typed(kept.home, "why").stderr == ""
    assert typed(kept.home, "history").stderr == ""
    kept.kill_keeper()
    os.kill(pid, signal.SIGKILL)
    noted = " ".join(typed(kept.home, "why").stderr.split())
    assert "the controller does not run. There is no keeper to restart it. Run `kanaria up`" in noted


def test_before_the_first_release_the_advice_is_how_to_start_one(tmp_path: Path) -> None:
    """The advice was to look at `kanaria history`, which was empty."""
    Ledger(tmp_path / "ledger.db").close()
    done = typed(tmp_path, "why")
    assert (done.returncode, "do:  start one: `kanaria release TAG`" in done.stderr) == (2, True), done.stderr


def test_the_check_for_a_controller_imports_little() -> None:
    """Neither the question who starts the controller nor its wording needs heavy modules."""
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
