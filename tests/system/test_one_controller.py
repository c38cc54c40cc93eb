"""Two controller processes on one state folder: one acts, the other waits for it to end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from kanaria.stack.ports import free_port
from kanaria.stack.supervision import Supervisor
from rollout.ledger.check import check
from rollout.ledger.lock import lock_file
from tests.support.asking import HTTP
from tests.support.paths import ROOT

pytestmark = pytest.mark.needs("serve")
LIMIT_S = 60.0


@dataclass(frozen=True)
class Process:
    """A controller process, as the supervisor starts it."""

    popen: "subprocess.Popen[bytes]"
    log: Path
    port: int

    def says(self, event: str) -> int:
        """The number of times it has logged `event`."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}"))
        return sum(line["event"] == event for line in lines)

    def answers(self, path: str = "/livez") -> bool:
        """Whether its API answers."""
        try:
            return HTTP.get(f"http://127.0.0.1:{self.port}{path}", timeout=1).is_success
        except httpx.HTTPError:
            return False

    def has_ledger(self) -> bool:
        """Whether it has the ledger open."""
        return any(file.path.endswith("ledger.db") for file in psutil.Process(self.popen.pid).open_files())


Start = Callable[[], Process]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / ".kanaria"


@pytest.fixture
def start(home: Path, tmp_path: Path) -> Iterator[Start]:
    """A function that starts a controller process for this state folder; there is no gateway and no version yet."""
    started: list[Process] = []

    def run() -> Process:
        port, log = free_port(), tmp_path / f"{len(started)}.log"
        own = {"PYTHONPATH": str(ROOT), "KANARIA_HOME": str(home), "KANARIA_CONTROLLER_PORT": str(port)}
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [sys.executable, "-m", "kanaria.stack.controller_process", "--gateway-stats", str(free_port())],
                env=os.environ | own | {"KANARIA_DRIFT_EVERY_S": "0"},
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(Process(popen, log, port))
        return started[-1]

    yield run
    for process in started:
        process.popen.kill()
        process.popen.wait()
    Supervisor(home, home / "logs").shutdown(doing="the test")  # a controller starts a keeper if there is none


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    deadline_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {LIMIT_S:.0f} s: {what}"
        time.sleep(0.05)


def test_a_second_controller_waits_while_the_first_lives(start: Start, home: Path) -> None:
    """It names the holder once and opens neither the ledger nor a port, even while the holder is suspended."""
    first = start()
    until(first.answers, "the first answers")
    second = start()
    until(lambda: second.says("waits_for_lock"), "the second says that it waits")
    assert f"the controller, pid {first.popen.pid}" in second.log.read_text()
    first.popen.send_signal(signal.SIGSTOP)
    assert (second.has_ledger(), second.answers(), second.popen.poll()) == (False, False, None)
    first.popen.send_signal(signal.SIGCONT)
    until(first.answers, "the first goes on")
    assert (second.has_ledger(), second.says("waits_for_lock")) == (False, 1)
    first.popen.kill()
    until(second.answers, "the second acts when the first was killed")
    assert str(second.popen.pid) in lock_file(home / "ledger.db").read_text()


def test_a_controller_that_lost_its_lock_ends(start: Start, home: Path) -> None:
    """The file was removed while the controller was suspended: the one that locked the new file acts alone."""
    first = start()
    until(first.answers, "the first answers")
    first.popen.send_signal(signal.SIGSTOP)
    lock_file(home / "ledger.db").unlink()
    second = start()
    until(second.answers, "the second acts")
    first.popen.send_signal(signal.SIGCONT)
    until(lambda: first.popen.poll() is not None, "the first ends")
    assert first.says("lock_lost")
    until(second.answers, "the second goes on")


def test_a_removed_lock_file_is_created_again(start: Start, home: Path) -> None:
    """The controller goes on, and a second one still waits."""
    first = start()
    until(first.answers, "the first answers")
    lock_file(home / "ledger.db").unlink()
    until(lambda: first.says("lock_file_made_again"), "the first has it again")
    second = start()
    until(lambda: second.says("waits_for_lock"), "the second waits")
    until(first.answers, "the first goes on")


def test_a_ledger_deleted_under_a_controller_is_put_back(start: Start, home: Path) -> None:
    """No restart is needed; later events are written to the restored file."""
    ledger, first = home / "ledger.db", start()
    until(ledger.is_file, "there is a ledger")
    until(lambda: first.answers("/readyz"), "the loop ticks")
    for file in home.glob("ledger.db*"):
        file.unlink()
    until(lambda: "ledger_put_back" in first.log.read_text(), "the log reports that the file was put back")
    until(lambda: ledger.is_file() and check(ledger).events == 1, "the ledger says so, too")
    assert first.popen.poll() is None
