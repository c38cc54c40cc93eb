"""Replaces the command line and the variables that the system shows for this process. A fork shows its parent's.

They are overwritten where the system reads them. Linux only. Imports nothing of ours: see `model_server`.
"""

import ctypes
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_FIRST_FIELD = 45  # index after the name in /proc/self/stat of the start of the command line; see proc(5)


def show(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Show this command line and these variables for this process. Raises OSError if they do not fit.

    A word of blanks at the end of the command line fills the remaining space.
    """
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    words_at, words_end, variables_at, variables_end = map(int, fields[_FIRST_FIELD : _FIRST_FIELD + 4])
    words = _block(command)
    variables = _block(f"{name}={value}" for name, value in environment.items())
    left = words_end - words_at - len(words)
    if not (words_at and variables_at) or left < 0 or len(variables) > variables_end - variables_at:
        raise OSError(f"no room for {len(words)} bytes of words and {len(variables)} of variables")
    words += b" " * (left - 1) + b"\0" if left else b""
    ctypes.memmove(words_at, words, len(words))
    ctypes.memmove(variables_at, variables.ljust(variables_end - variables_at, b"\0"), variables_end - variables_at)


def _block(words: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(word) + b"\0" for word in words)
