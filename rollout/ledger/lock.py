"""The right to write the ledger of a state folder and to act on it: one process has it, for as long as it lives.

The kernel keeps the lock for an open file and drops it with its process, however that ends, so nothing is ever left
locked. Children do not inherit it. Its file stays where it is: two processes that locked two files would both go on.
"""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from rollout.errors import LedgerHeld

_LONGEST_NOTE = 200  # bytes of the file that are read: who holds it


def lock_file(ledger: Path) -> Path:
    """The file whose lock guards the ledger `ledger`."""
    return ledger.with_suffix(".lock")


class WriterLock:
    """The lock of one ledger, taken with `take` or `wait`."""

    def __init__(self, ledger: Path, *, who: str) -> None:
        """Nothing is locked yet.

        Args:
            who: what this process is, for the one that finds it locked.
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
        """Lock it as soon as no other process has it; `on_held` is called once if one has. Raises OSError."""
        try:
            self.take()
        except LedgerHeld as held:
            on_held(held)
        while not self.is_mine:
            self._open()
            fcntl.flock(self._held(), fcntl.LOCK_EX)  # its holder's end wakes this process
        self._sign()

    @property
    def is_mine(self) -> bool:
        """Whether this process holds the file that is there now; no longer once somebody has removed or replaced it."""
        if self._fd is None:
            return False
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._fd))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # whoever cannot see the file cannot see that it was replaced
            return True

    def holder(self) -> str:
        """Who took it last, as that process wrote it."""
        try:
            with self.path.open("rb") as file:
                return file.read(_LONGEST_NOTE).decode(errors="replace").strip() or "an unknown process"
        except OSError as error:
            return str(error)

    def release(self) -> None:
        """Let others have it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> None:
        """Open the file that is there now; made where there is none."""
        self.release()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _held(self) -> int:
        if self._fd is None:
            raise ValueError("the lock file is not open")
        return self._fd

    def _sign(self) -> None:
        """Write who holds it. A full disk takes the note, not the lock."""
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        note = f"{self._who}, pid {os.getpid()}, since {since}\n".encode()
        try:
            os.ftruncate(self._held(), 0)
            os.pwrite(self._held(), note, 0)
        except OSError:
            return
