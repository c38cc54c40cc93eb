"""Room on the disk that is taken beforehand, so that what makes traffic safe can be written when the disk is full.

Two kinds: a spare file of the same size beside one that is replaced, and ballast that is thrown off. On file systems
that never write in place (btrfs, ZFS, APFS) the spare is no help; the ballast is.
"""

import contextlib
import os
import time
from pathlib import Path

from contract.files import write_whole

LOW_BYTES = 512 * 2**20  # with less free room people are warned; a busy day of Prometheus and predictions takes more
_GRAIN = 64 * 1024  # a spare is a multiple of this, bytes; a split of two versions is a quarter of it


def replace(path: Path, text: str) -> None:
    """Replace the file at `path` in one step, as `write_whole` does, from the second time on without new room.

    The new content is written over the spare, whose blocks are there already, and the two change places. Then the spare
    is brought up to date, so that it also replaces a file that somebody damages. Both end with spaces.

    Raises: OSError.
    """
    content, spare = text.encode(), spare_of(path)
    for taken in (path, spare):
        if taken.is_dir():  # nothing of ours; it is kept, under another name
            taken.rename(taken.with_name(f"{taken.name}.{time.time_ns()}"))
    if not spare.exists():
        with contextlib.suppress(OSError):
            _old(path).replace(spare)  # the writer before was killed between the two
    try:
        _overwrite(spare, content)
    except OSError:  # no spare could be made: this one is written like any other file
        write_whole(path, content, mode=0o600)
        return
    _exchange(spare, path)
    with contextlib.suppress(OSError):
        _overwrite(spare, content, is_synced=False)


def spare_of(path: Path) -> Path:
    """Where the spare of the file at `path` lies."""
    return path.with_name(f".{path.name}.spare")


def reserve(path: Path) -> None:
    """Make the file at `path`, which then takes what `overwrite` gives it without new room. Raises OSError."""
    if not path.exists():
        _overwrite(path, b"")


def overwrite(path: Path, text: str) -> None:
    """Write over the file at `path` in place; the rest of it becomes spaces. On disk when this returns. Raises OSError.

    A power cut may leave a mixture of old and new.
    """
    _overwrite(path, text.encode())


class Ballast:
    """A file that is deleted when the disk is full, so that one more thing can be written."""

    def __init__(self, path: Path, size: int) -> None:
        """
        Args:
            size: bytes; on a small disk less, at most an eighth of it. 0: nothing is taken.
        """
        self._path, self._size = path, size

    @property
    def is_there(self) -> bool:
        return self._path.exists()

    def take(self) -> bool:
        """Take the room, unless it is taken or there is too little. Returns whether it is taken now."""
        if self.is_there:
            return True
        size = min(self._size, _total_bytes(self._path.parent) // 8)
        if size == 0 or free_bytes(self._path.parent) < 2 * size:  # twice, or it would be taken back at once
            return False
        try:
            _allocate(self._path, size)
        except OSError:
            self.throw_off()
            return False
        return True

    def throw_off(self) -> bool:
        """Give the room back. Returns whether there was any."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True


def free_bytes(folder: Path) -> int:
    """What this user may still write on the file system of `folder`; 0 where that cannot be read."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def _total_bytes(folder: Path) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_blocks * found.f_frsize


def _overwrite(path: Path, content: bytes, *, is_synced: bool = True) -> None:
    with os.fdopen(_opened(path), "r+b") as file:
        size = max(os.fstat(file.fileno()).st_size, -(-max(len(content), 1) // _GRAIN) * _GRAIN)
        file.write(content.ljust(size))
        file.flush()
        if is_synced:
            os.fsync(file.fileno())


def _opened(path: Path) -> int:
    """The file, made when it is not there, or is not this process's alone to write."""
    with contextlib.suppress(OSError):
        if path.stat().st_nlink > 1 or not os.access(path, os.R_OK | os.W_OK):
            path.unlink()
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _exchange(spare: Path, path: Path) -> None:
    """Give the spare the name `path`, and the file that has it now the name of the spare."""
    old = _old(path)
    with contextlib.suppress(OSError):
        old.unlink()
    with contextlib.suppress(OSError):  # no links on this file system, no inode left, or there is no old file
        old.hardlink_to(path)
    spare.replace(path)
    with contextlib.suppress(OSError):
        old.replace(spare)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _allocate(path: Path, size: int) -> None:
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.write(bytes(size))
