"""Plain files in a folder that others write to as well, maybe to mislead whoever reads it.

No link is followed, neither in place of the file nor of its folder, and nobody waits for who writes a pipe.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class NotPlain(OSError):
    """A link, a pipe or something else that is no plain file, or no folder."""


@contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """The descriptor of a folder; links above it are followed. Raises NotPlain, OSError."""
    descriptor = _opened(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def opened_file(name: str, folder: int, flags: int = os.O_RDONLY) -> int:
    """The descriptor of a file in a folder that is open; one that is made is its owner's alone.

    Raises NotPlain, OSError.
    """
    descriptor = _opened(name, flags | os.O_NONBLOCK, folder)  # which means nothing for a plain file
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotPlain(errno.EINVAL, "it is no plain file", name)
    return descriptor


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file to be read; links above its folder are followed. Raises NotPlain, OSError."""
    with opened_folder(path.parent) as folder, os.fdopen(opened_file(path.name, folder), "rb") as file:
        yield file


def read(path: Path) -> bytes:
    """The whole content of a file. Raises as `opened`."""
    with opened(path) as file:
        return file.read()


def _opened(path: Path | str, flags: int, folder: int | None = None) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        # ELOOP: a link. ENOTDIR: one in place of a folder. ENXIO: a socket, or a pipe that nobody reads.
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise NotPlain(error.errno, os.strerror(error.errno), str(path)) from error
        raise
