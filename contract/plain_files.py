"""Reads plain files in a folder to which untrusted processes write too.

No link is followed, neither for the file nor for its folder, and opening a pipe does not wait for its writer.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO


class NotPlain(OSError):
    """It is a link, a pipe or something else that is not a plain file, or not a folder."""


@contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """The descriptor of a folder; links above it are followed. Raises NotPlain, OSError."""
    descriptor = _opened(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def opened_file(name: str, folder: int, flags: int = os.O_RDONLY) -> int:
    """The descriptor of a file in an open folder. A file that is created is accessible only to its owner.

    Raises NotPlain, OSError.
    """
    descriptor = _opened(name, flags | os.O_NONBLOCK, folder)  # O_NONBLOCK has no effect on a plain file
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotPlain(errno.EINVAL, "it is not a plain file", name)
    return descriptor


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; links above its folder are followed. Raises NotPlain, OSError."""
    with opened_folder(path.parent) as folder, os.fdopen(opened_file(path.name, folder), "rb") as file:
        yield file


def read(path: Path) -> bytes:
    """The whole content of a file. Raises as `opened` does."""
    with opened(path) as file:
        return file.read()


def read_within(folder: Path, name: str, *, most: int) -> bytes:
    """The whole content of a file below a folder. Links on the way to the folder are followed.

    Args:
        name: the file's path relative to the folder.
        most: the largest size that is accepted, bytes.

    Raises: NotPlain; OSError, also if the file is larger.
    """
    path, parts = folder / name, PurePath(name).parts
    if PurePath(name).is_absolute() or ".." in parts:
        raise NotPlain(errno.EINVAL, "it is outside the folder", str(path))
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
        return file.read(size)  # Python allocates as much memory as it is asked to read


def _opened(path: Path | str, flags: int, folder: int | None = None) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        # ELOOP: a link. ENOTDIR: a link in place of a folder. ENXIO: a socket, or a pipe without a reader.
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            is_link = error.errno != errno.ENXIO
            saw = "it is a link, or is behind one" if is_link else "it is not a plain file"
            raise NotPlain(error.errno, saw, str(path)) from error
        raise
