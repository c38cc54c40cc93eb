"""Reads files that a user named: a pipe or a device in their place would keep the reader waiting."""

import os
import stat
from pathlib import Path


def text_of(path: Path) -> str:
    """The whole text. Raises OSError, also for what is no regular file, and UnicodeDecodeError."""
    with open(path, opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(None, "it is no regular file")
        return file.read()


def _at_once(path: str, flags: int) -> int:
    """Open without waiting for whoever writes a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
