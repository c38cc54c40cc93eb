"""One process may write a ledger; the kernel gives the lock to the next one only when that process ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from rollout.errors import LedgerHeld
from rollout.ledger.lock import WriterLock, lock_file
from tests.support.paths import ROOT
from tests.support.waiting import eventually

HOLD = """
import sys
from pathlib import Path
from rollout.ledger.lock import WriterLock

lock = WriterLock(Path(sys.argv[1]), who=sys.argv[2])
lock.wait(on_held=lambda held: print("waits", held.saw, flush=True))
print("holds", flush=True)
for line in sys.stdin:
    print("mine" if lock.is_mine else "lost", flush=True)
"""
Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def start(ledger: Path) -> Iterator[Start]:
    """Starts a process that takes the lock as soon as it can."""
    started: list[subprocess.Popen[str]] = []

    def run(who: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(ledger), who],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        with process:
            pass


def next_line(process: "subprocess.Popen[str]") -> str:
    """Waits for the next line of a process."""
    return pipe(process.stdout).readline().strip()


def holds_lock(process: "subprocess.Popen[str]") -> str:
    """Whether the process still holds the lock."""
    pipe(process.stdin).write("?\n")
    pipe(process.stdin).flush()
    return next_line(process)


def pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def test_the_lock_of_a_killed_process_is_free_at_once(start: Start) -> None:
    """kill -9 leaves nothing locked: the waiting process continues."""
    first = start("first")
    assert next_line(first) == "holds"
    second = start("second")
    assert f"first, pid {first.pid}, since" in next_line(second)
    first.send_signal(signal.SIGKILL)
    assert next_line(second) == "holds"
    assert holds_lock(second) == "mine"


def test_a_stopped_process_keeps_its_lock(start: Start, ledger: Path) -> None:
    """A process after SIGSTOP may continue, so no other may act."""
    first = start("first")
    assert next_line(first) == "holds"
    first.send_signal(signal.SIGSTOP)
    with pytest.raises(LedgerHeld, match=f"pid {first.pid}") as refused:
        WriterLock(ledger, who="the test").take()
    assert "kanaria down" in refused.value.do
    first.send_signal(signal.SIGCONT)
    assert holds_lock(first) == "mine"


def test_children_do_not_inherit_the_lock(ledger: Path) -> None:
    """A version or a drift report that outlives the controller must not block the next one."""
    lock = WriterLock(ledger, who="the test")
    lock.take()
    script = "print('runs', flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False, text=True
    )
    assert next_line(child) == "runs"
    lock.release()
    other = WriterLock(ledger, who="another")
    other.take()
    assert other.is_mine
    child.communicate("\n")
    other.release()


@pytest.mark.parametrize("replace", [True, False])
def test_a_process_notices_that_its_lock_file_was_removed(start: Start, ledger: Path, replace: bool) -> None:
    """A person who removes it lets a second process in; the first can detect this."""
    first = start("first")
    assert next_line(first) == "holds"
    lock_file(ledger).unlink()
    if replace:
        lock_file(ledger).touch()
    assert holds_lock(first) == "lost"
    assert next_line(start("second")) == "holds"


def test_a_process_that_waits_for_a_removed_lock_file_takes_the_new_one(start: Start, ledger: Path) -> None:
    """Two waiting processes never both get in, one by the old file and one by the new."""
    first = start("first")
    assert next_line(first) == "holds"
    second = start("second")
    assert next_line(second).startswith("waits")
    opened = psutil.Process(second.pid)
    eventually(lambda: str(lock_file(ledger)) in {file.path for file in opened.open_files()})
    lock_file(ledger).unlink()
    third = start("third")
    assert next_line(third) == "holds"
    first.kill()
    third.kill()
    assert next_line(second) == "holds"
    assert holds_lock(second) == "mine"


def test_a_held_lock_is_not_taken_twice_within_one_process(ledger: Path) -> None:
    """The second attempt is refused."""
    lock = WriterLock(ledger, who="the test")
    lock.take()
    lock.take()
    with pytest.raises(LedgerHeld):
        WriterLock(ledger, who="another").take()
    lock.release()
    assert not lock.is_mine


def test_a_lock_with_an_empty_note_still_gives_an_error(ledger: Path) -> None:
    """A full disk leaves the note empty."""
    lock = WriterLock(ledger, who="the test")
    lock.take()
    os.truncate(lock_file(ledger), 0)
    with pytest.raises(LedgerHeld, match="an unknown process"):
        WriterLock(ledger, who="another").take()
    lock.release()
