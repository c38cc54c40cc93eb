"""A folder whose changes wake this process."""

import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kanaria.stack.folder_watch import FolderWatch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no other system has dnotify")
LIMIT_S = 60.0


class Signals:
    """The signals that this process received."""

    def __init__(self, there: socket.socket) -> None:
        self._there = there

    def all(self) -> bytes:
        """The signals since the last call."""
        seen = b""
        with suppress(BlockingIOError):
            while True:
                seen += self._there.recv(4096)
        return seen

    def wait(self) -> None:
        assert select.select([self._there], [], [], LIMIT_S)[0], "no signal arrived"
        assert set(self.all()) == {signal.SIGIO}


@pytest.fixture
def signals() -> Iterator[Signals]:
    here, there = socket.socketpair()
    with here, there:
        for end in (here, there):
            end.setblocking(False)
        handler, wakeup = signal.getsignal(signal.SIGIO), signal.set_wakeup_fd(here.fileno())
        yield Signals(there)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGIO, handler)


@pytest.fixture
def watch(tmp_path: Path, signals: Signals) -> Iterator[FolderWatch]:
    made = FolderWatch(tmp_path / "folder")
    yield made
    made.close()


def changes(folder: Path) -> Iterator[Callable[[], object]]:
    """Create, overwrite, rename and delete a file."""
    yield (folder / "one").touch
    yield lambda: (folder / "one").write_text("more")
    yield lambda: (folder / "one").rename(folder / "two")
    yield (folder / "two").unlink


def test_every_change_is_signalled(watch: FolderWatch, signals: Signals, tmp_path: Path) -> None:
    """Changes of another folder are not."""
    folder = tmp_path / "folder"
    folder.mkdir()
    assert not watch.is_in_force(), "no signal for an earlier change"
    assert watch.is_in_force()
    assert not signals.all()
    for change in changes(folder):
        change()
        signals.wait()
    (tmp_path / "other").touch()
    assert not signals.all()


def test_a_new_or_replaced_folder_is_watched_from_then_on(watch: FolderWatch, signals: Signals, tmp_path: Path) -> None:
    """A process that watched before is signalled that it may have missed changes."""
    folder = tmp_path / "folder"
    for number in range(3):
        assert not watch.is_in_force()
        folder.mkdir()
        assert [watch.is_in_force() for _ in range(3)] == [False, True, True]
        (folder / "one").touch()
        signals.wait()
        folder.rename(tmp_path / f"aside {number}")


def test_nothing_is_signalled_after_the_watch_ends(watch: FolderWatch, signals: Signals, tmp_path: Path) -> None:
    """Other code may still use the folder."""
    (tmp_path / "folder").mkdir()
    watch.is_in_force()
    watch.close()
    (tmp_path / "folder" / "one").touch()
    assert not signals.all()
