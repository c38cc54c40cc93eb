"""Reads files that a user named, and refuses pipes and devices, which could block the reader."""

import os
import stat
from pathlib import Path


def text_of(path: Path) -> str:
    """The text of a file. Raises OSError, also if it is not a regular file, and UnicodeDecodeError."""
    with open(path, opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(None, "it is not a regular file")
        return file.read()


def _at_once(path: str, flags: int) -> int:
    """Open without waiting for the writer of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
