"""Locks between real processes."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kanaria.errors import StackError
from kanaria.stack.locks import holder, locked
from tests.support.small_disk import SmallDisk

HOLD = """
import sys, time
from pathlib import Path
from kanaria.stack.locks import locked
with locked(Path(sys.argv[1]), doing="kanaria up", wait_s=0):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("number", [None, signal.SIGSTOP], ids=["at work", "hung"])
def test_a_held_lock_is_waited_for_and_its_holder_named(tmp_path: Path, number: signal.Signals | None) -> None:
    """After the wait, the error names the command and process that hold the lock. A dead process holds nothing."""
    path = tmp_path / "command.lock"
    other = hold(path)
    if number is not None:
        os.kill(other.pid, number)
    try:
        found = holder(path)
        assert found is not None
        assert (found.pid, found.doing) == (other.pid, "kanaria up")
        lines: list[str] = []
        with (
            pytest.raises(StackError, match=f"kanaria up.*{other.pid}"),
            locked(path, doing="kanaria down", wait_s=1.2, say=lines.append),
        ):
            pass
        assert lines == [f"waiting for `kanaria up`, process {other.pid}"]
    finally:
        other.kill()
        other.communicate()
    assert holder(path) is None
    with locked(path, doing="kanaria down", wait_s=0):
        assert holder(path) == holder(path)
        own = holder(path)
        assert own is not None
        assert own.pid == os.getpid()
    assert holder(path) is None


def test_a_child_does_not_inherit_a_lock(tmp_path: Path) -> None:
    """Otherwise the lock would be held as long as the child lives."""
    path = tmp_path / "command.lock"
    with locked(path, doing="kanaria up", wait_s=0):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        with locked(path, doing="kanaria down", wait_s=0):
            pass
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("content", ["", "{", '{"pid": 1}', "\x00"])
def test_an_unreadable_lock_file_has_no_holder(tmp_path: Path, content: str) -> None:
    """It was truncated, or written by another version. The lock itself is in the kernel."""
    path = tmp_path / "command.lock"
    path.write_text(content)
    assert holder(path) is None
    with locked(path, doing="kanaria up", wait_s=0):
        assert holder(path) is not None


def test_a_full_disk_does_not_block_an_existing_lock(small_disk: SmallDisk) -> None:
    """`down` must work then, and a waiting command must see who holds the lock."""
    path = small_disk.folder / "command.lock"
    with locked(path, doing="kanaria up", wait_s=0):
        pass
    assert holder(path) is None
    small_disk.fill()
    with locked(path, doing="kanaria upgrade", wait_s=0):
        found = holder(path)
        assert found is not None
        assert found.doing == "kanaria upgrade"
    assert holder(path) is None


def test_a_lock_that_cannot_be_retaken_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network disk that refused the lock, every attempt left one more file open, until no file could be opened."""

    def gives_none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    path = tmp_path / "keeper.lock"
    with locked(path, doing="keeper", wait_s=0) as lock:
        path.unlink()
        before = psutil.Process().num_fds()
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", gives_none)
            for _ in range(3):
                with pytest.raises(OSError, match="No locks available"):
                    lock.take_again()
        assert (psutil.Process().num_fds(), lock.is_in_place) == (before, False)
        assert (lock.take_again(), lock.is_in_place) == (True, True)
        assert psutil.Process().num_fds() == before
        found = holder(path)
        assert found
        assert found.pid == os.getpid()
