"""Files as a whole: one that is replaced is seen old or new, never in part; one of others is read through no link."""

import errno
import os
import stat
import threading
from contextlib import ExitStack
from pathlib import Path, PurePath


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
    incoming = path.with_name(f".{path.name}.{os.getpid()}{threading.get_native_id()}")  # no other writer has this name
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


def read_of_others(folder: Path, name: str, *, most: int) -> bytes:
    """What a file holds whose folder others write, through no link: it could lead to a secret, which would be shown.

    Args:
        folder: itself may be reached through links.
        name: of the file, relative to the folder.
        most: bytes that it may have.

    Raises: OSError, also for a link, on the way as well, for what is no regular file, and for a larger one.
    """
    path, parts = folder / name, PurePath(name).parts
    if PurePath(name).is_absolute() or ".." in parts:
        raise OSError(errno.EINVAL, "it lies outside", str(path))
    with ExitStack() as held:

        def opened(step: str, flags: int, place: int | None) -> int:
            descriptor = os.open(step, flags | os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=place)
            held.callback(os.close, descriptor)
            return descriptor

        try:
            place = opened(str(folder), os.O_DIRECTORY, None)
            *steps, last = parts
            for step in steps:
                place = opened(step, os.O_DIRECTORY | os.O_NOFOLLOW, place)
            file = opened(last, os.O_NOFOLLOW, place)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise OSError(errno.ELOOP, "it is a link, or lies behind one", str(path)) from error
            error.filename = str(path)
            raise
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
        with os.fdopen(os.dup(file), "rb") as content:
            return content.read(most)
