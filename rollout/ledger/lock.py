"""The lock of a state folder: only its holder may write the ledger and act on it, for as long as the process lives.

The kernel ties the lock to an open file and releases it when the process ends, however it ends, so no lock is left
over. Children do not inherit it. The lock's file is never removed: two processes that locked two files would both run.
"""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from rollout.errors import LedgerHeld

_LONGEST_NOTE = 200  # bytes to read of the file, which names the holder


def lock_file(ledger: Path) -> Path:
    """The file whose lock guards the ledger `ledger`."""
    return ledger.with_suffix(".lock")


class WriterLock:
    """The lock of one ledger, taken with `take` or `wait`."""

    def __init__(self, ledger: Path, *, who: str) -> None:
        """This locks nothing yet.

        Args:
            ledger: the ledger's path.
            who: the name of this process, for processes that find the folder locked.
        """
        self.path, self._who = lock_file(ledger), who
        self._fd: int | None = None

    def take(self) -> None:
        """Lock it at once. Raises LedgerHeld, OSError."""
        while not self.is_mine:
            self._open()
            try:
                fcntl.flock(self._held(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = self.holder()
                self.release()
                raise LedgerHeld(
                    "another process holds the state folder",
                    saw=f"{self.path}: {holder}",
                    do="stop the stack first, with `kanaria down`",
                ) from error
        self._sign()

    def wait(self, *, on_held: Callable[[LedgerHeld], None]) -> None:
        """Lock it as soon as no other process holds it; `on_held` is called once if one does. Raises OSError."""
        try:
            self.take()
        except LedgerHeld as held:
            on_held(held)
        while not self.is_mine:
            self._open()
            fcntl.flock(self._held(), fcntl.LOCK_EX)  # returns when the holder ends
        self._sign()

    @property
    def is_mine(self) -> bool:
        """Whether this process holds the lock on the present file; false once the file was removed or replaced."""
        if self._fd is None:
            return False
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._fd))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # a file that cannot be inspected does not count as replaced
            return True

    def holder(self) -> str:
        """The process that took the lock last, in its own words."""
        try:
            with self.path.open("rb") as file:
                return file.read(_LONGEST_NOTE).decode(errors="replace").strip() or "an unknown process"
        except OSError as error:
            return str(error)

    def release(self) -> None:
        """Release the lock."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> None:
        """Open the present file, or create it."""
        self.release()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _held(self) -> int:
        if self._fd is None:
            raise ValueError("the lock file is not open")
        return self._fd

    def _sign(self) -> None:
        """Write who holds the lock. On a full disk the note is lost, but not the lock."""
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        note = f"{self._who}, pid {os.getpid()}, since {since}\n".encode()
        try:
            os.ftruncate(self._held(), 0)
            os.pwrite(self._held(), note, 0)
        except OSError:
            return
