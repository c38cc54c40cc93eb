"""The command line and the variables of this process as the system shows them, which a fork has of where it came from.

They are written anew in the place where the system reads them. Linux only. Imports nothing of ours: see `model_server`.
"""

import ctypes
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_FIRST_FIELD = 45  # of those after the name in /proc/self/stat: where the command line begins; see proc(5)


def show(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Let this process be seen with this command line and these variables. Raises OSError where there is no room.

    What room is left ends the command line as a word of blanks.
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
