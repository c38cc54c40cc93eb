"""Files that are written as a whole: whoever reads one meanwhile sees the old or the new one, never a part."""

import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path

from contract import plain_files


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o666, is_public: bool = False) -> None:
    """Replace the file at `path` in one step, on disk when this returns. A pipe or a terminal is written to.

    A failure leaves the old file, and nothing beside it. The file that is being written begins with a dot and ends with
    a number, so that nobody who looks for `*.json` finds it.

    Args:
        mode: rights of the new file, before the umask.
        is_public: whether everybody who may enter its folder may read it, whatever the umask says.

    Raises: OSError.
    """
    path = path.resolve()  # a link stays one
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
    """Make the file at `path`, for its owner alone, whole or not at all and on disk when this returns. It is a secret.

    One that is there stays, also where another process makes it at this moment. One that was lost does not, see
    `is_lost`: who asks for an empty secret lets everybody in. Raises OSError.
    """
    incoming = _incoming(path)
    incoming.unlink(missing_ok=True)  # a killed process may have left it
    try:
        with os.fdopen(os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _put(incoming, path)
        with suppress(OSError):  # of a folder some file systems cannot do this
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the name
            finally:
                os.close(folder)
    finally:
        incoming.unlink(missing_ok=True)


def is_lost(content: bytes) -> bool:
    """Whether this is what a power cut may leave of a file that was not on disk yet: nothing, or nothing but zeros."""
    return not content.strip(b"\0 \t\r\n")


def _put(incoming: Path, path: Path) -> None:
    """Give the file `incoming` the name `path`, unless there is a file that was not lost."""
    while True:
        with suppress(FileExistsError):
            path.hardlink_to(incoming)
            return
        with suppress(FileNotFoundError), plain_files.opened(path.parent.resolve() / path.name) as there:
            # Of two who find it lost, one replaces it: else the first would use a content that is there no more.
            fcntl.flock(there, fcntl.LOCK_EX)
            if not is_lost(there.read()):
                return
            if os.path.samestat(os.fstat(there.fileno()), path.lstat()):
                incoming.replace(path)
                return


def _incoming(path: Path) -> Path:
    """Where the content of `path` is written first; no other writer has this name."""
    return path.with_name(f".{path.name}.{os.getpid()}{threading.get_native_id()}")
