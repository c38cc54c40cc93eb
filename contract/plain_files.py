"""Plain files in a folder that others write to as well, maybe to mislead whoever reads it.

No link is followed, neither in place of the file nor of its folder, and nobody waits for who writes a pipe.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath
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


def read_within(folder: Path, name: str, *, most: int) -> bytes:
    """The whole content of a file below a folder, which itself may lie behind links.

    Args:
        name: of the file, relative to the folder.
        most: bytes that it may have.

    Raises: NotPlain, OSError, also for a larger one.
    """
    path, parts = folder / name, PurePath(name).parts
    if PurePath(name).is_absolute() or ".." in parts:
        raise NotPlain(errno.EINVAL, "it lies outside", str(path))
    with ExitStack() as held:

        def kept(descriptor: int) -> int:
            held.callback(os.close, descriptor)
            return descriptor

        try:
            place = kept(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            *steps, last = parts
            for step in steps:
                place = kept(_opened(step, os.O_RDONLY | os.O_DIRECTORY, place))
            file = held.enter_context(os.fdopen(opened_file(last, place), "rb"))
        except OSError as error:
            error.filename = str(path)
            raise
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
        return file.read(size)  # Python takes as much memory as it is told to read


def _opened(path: Path | str, flags: int, folder: int | None = None) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        # ELOOP: a link. ENOTDIR: one in place of a folder. ENXIO: a socket, or a pipe that nobody reads.
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            is_link = error.errno != errno.ENXIO
            saw = "it is a link, or lies behind one" if is_link else "it is no plain file"
            raise NotPlain(error.errno, saw, str(path)) from error
        raise
