"""Errors of a machine that is out of memory, file descriptors or processes: they say nothing about the request."""

import errno
from pathlib import Path

# No more processes or threads, memory, file descriptors of this process or of the machine, or buffers.
_SHORT_OF = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS)


def is_shortage(error: BaseException) -> bool:
    """Whether the error is such a shortage, so that the answer is unknown and a later try may succeed."""
    return isinstance(error, OSError) and error.errno in _SHORT_OF


def text_of(path: Path) -> bytes | None:
    """The content of a note; None if it cannot be read. Raises OSError if it is a shortage."""
    try:
        return path.read_bytes()
    except OSError as error:
        if is_shortage(error):
            raise
        return None
