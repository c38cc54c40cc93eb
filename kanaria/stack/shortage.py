"""Failures that say nothing about what was asked for: this process or its machine lacks something for a moment."""

import errno
from pathlib import Path

# No memory, no further file to open in this process or on this machine, no further process or thread, no buffers.
_SHORT_OF = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS)


def is_shortage(error: BaseException) -> bool:
    """Whether nobody knows more than before, and asking again later may help."""
    return isinstance(error, OSError) and error.errno in _SHORT_OF


def text_of(path: Path) -> bytes | None:
    """What is in a note; None: it cannot be read. Raises OSError where only a file to open is missing."""
    try:
        return path.read_bytes()
    except OSError as error:
        if is_shortage(error):
            raise
        return None
