"""Writes files as a whole: a reader sees the old or the new content, never a part."""

import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path

from contract import plain_files


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o666, is_public: bool = False) -> None:
    """Replace the file at `path` in one step; it is on disk when this returns. A pipe or terminal is written directly.

    A failure leaves the old file and no other. The name of the temporary file begins with a dot and ends with a number,
    so that a search for `*.json` does not find it.

    Args:
        mode: permissions of the new file, before the umask.
        is_public: whether everyone who may enter its folder may read it, whatever the umask says.

    Raises: OSError.
    """
    path = path.resolve()  # a link stays a link: its target is replaced
    encoded = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(encoded)
        return
    incoming = _incoming(path)
    try:
        with os.fdopen(os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(encoded)
            if is_public:
                os.fchmod(file.fileno(), 0o644)
            file.flush()
            os.fsync(file.fileno())  # without it a power cut may leave the new name with an empty file
        incoming.replace(path)
    except BaseException:
        incoming.unlink(missing_ok=True)
        raise


def write_once(path: Path, content: bytes) -> None:
    """Create a secret file at `path` that only its owner can read: whole or not at all, on disk when this returns.

    An existing file stays, even if another process creates it at this moment. A lost one (`is_lost`) is replaced:
    a service that requires an empty secret lets everyone in. Raises OSError.
    """
    incoming = _incoming(path)
    incoming.unlink(missing_ok=True)  # a killed process may have left it
    try:
        with os.fdopen(os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _put(incoming, path)
        with suppress(OSError):  # some file systems cannot sync a folder
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # writes the file's name to disk
            finally:
                os.close(folder)
    finally:
        incoming.unlink(missing_ok=True)


def is_lost(content: bytes) -> bool:
    """Whether a power cut may have left this content, of a file that was not on disk yet: nothing, or only zeros."""
    return not content.strip(b"\0 \t\r\n")


def _put(incoming: Path, path: Path) -> None:
    """Rename the file `incoming` to `path`, unless that exists and was not lost."""
    while True:
        with suppress(FileExistsError):
            path.hardlink_to(incoming)
            return
        with suppress(FileNotFoundError), plain_files.opened(path.parent.resolve() / path.name) as there:
            # If two processes find the file lost, only one may replace it: the other would use content that is gone.
            fcntl.flock(there, fcntl.LOCK_EX)
            if not is_lost(there.read()):
                return
            if os.path.samestat(os.fstat(there.fileno()), path.lstat()):
                incoming.replace(path)
                return


def _incoming(path: Path) -> Path:
    """The temporary file for the content of `path`; no other writer uses this name."""
    return path.with_name(f".{path.name}.{os.getpid()}{threading.get_native_id()}")
