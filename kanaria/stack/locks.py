"""A lock on a state folder: one process at a time holds it, and the end of that process releases it."""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from kanaria.errors import StackError
from kanaria.stack.identity import Identity
from kanaria.stack.shortage import is_shortage

KEEPER_LOCK, COMMAND_LOCK = "keeper.lock", "command.lock"  # of the keeper; of a command that acts in its place
_OTHER_COMMAND_S = 90.0  # longest wait for another command to end
_POLL_S = 0.05
_SAY_AFTER_S = 1.0
_NOTE_BYTES = 256  # longer than any note


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that has a lock."""

    pid: int
    started_s: float  # as in `Identity`
    doing: str

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.started_s)


_HOLDER = TypeAdapter(Holder)


def holder(path: Path) -> Holder | None:
    """The living process that has the lock `path`; None if it is free. Reads only the note, not the lock itself.

    Raises: OSError if it cannot be found out.
    """
    try:
        found = _HOLDER.validate_json(path.read_bytes())
        is_alive = found.identity.is_alive
    except ValidationError:
        return None
    except OSError as error:
        if is_shortage(error):
            raise
        return None
    return found if is_alive else None


def has_keeper(home: Path) -> bool:
    """Whether a keeper, or a command in its place, starts what should run in this state folder."""
    return any(holder(home / lock) for lock in (KEEPER_LOCK, COMMAND_LOCK))


def one_command(home: Path, *, doing: str, say: Callable[[str], None]) -> AbstractContextManager[object]:
    """Keep other commands from starting or stopping processes in this state folder. Raises StackError."""
    return locked(home / COMMAND_LOCK, doing=doing, wait_s=_OTHER_COMMAND_S, say=say)


class Lock:
    """A lock that this process holds, by the file that was at the path when it was taken."""

    def __init__(self, path: Path, file: int, doing: str) -> None:
        self.path, self.file, self._doing = path, file, doing

    @property
    def is_in_place(self) -> bool:
        """Whether the locked file is still at the path. False once it was removed or replaced.

        Raises OSError if it cannot be found out.
        """
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.file))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def take_again(self) -> bool:
        """Lock the file that is now at the path; create it if it is missing. False if another process holds it.

        Raises OSError; the previous file then stays locked.
        """
        left = _opened(self.path)
        try:
            if not _taken(left):
                return False
            Lock(self.path, left, self._doing).sign()
            self.file, left = left, self.file
        finally:
            os.close(left)
        return True

    def sign(self) -> None:
        """Write a note of the holder into the file."""
        own = Identity.of(os.getpid())
        _note(self.file, _HOLDER.dump_json(Holder(doing=self._doing, **asdict(own))) if own is not None else b"")


@contextmanager
def locked(path: Path, *, doing: str, wait_s: float, say: Callable[[str], None] = lambda _: None) -> Iterator[Lock]:
    """Hold the lock `path` while the block runs.

    Args:
        doing: what this process does, for the messages of other processes.
        wait_s: longest wait for another holder, seconds.
        say: prints which process this one waits for.

    Raises: StackError after that wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(path, _opened(path), doing)
    try:
        _wait_for(lock.file, path, wait_s, say)
        lock.sign()
        try:
            yield lock
        finally:
            _note(lock.file, b"")
    finally:
        os.close(lock.file)


def _opened(path: Path) -> int:
    # O_CLOEXEC: a child that inherited the file would hold the lock after this process ended.
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # no note can be written, but the lock works


def _note(file: int, text: bytes) -> None:
    """Overwrite the note, which works on a full disk too. The lock does not depend on the note."""
    with suppress(OSError):
        os.pwrite(file, text.ljust(_NOTE_BYTES), 0)


def _wait_for(file: int, path: Path, wait_s: float, say: Callable[[str], None]) -> None:
    began_s, is_said = time.monotonic(), False
    while not _taken(file):
        waited_s, who = time.monotonic() - began_s, holder(path)
        seen = f"`{who.doing}`, process {who.pid}" if who else "another process"
        if waited_s >= wait_s:
            raise StackError(
                "another command works in this state folder",
                saw=f"{seen} has {path}",
                do=f"wait until it has ended, or stop it: kill {who.pid}" if who else "try again",
            )
        if waited_s >= _SAY_AFTER_S and not is_said:
            is_said = True
            say(f"waiting for {seen}")
        time.sleep(_POLL_S)


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
