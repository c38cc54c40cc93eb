"""What a program gets of its surroundings: some variables of the operator's, and no way to more rights."""

import ctypes
import os
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress

from kanaria.stack.inherited import first_word, inherited, withheld
from kanaria.stack.supervision import Program

_SET_NO_NEW_PRIVILEGES = 38  # of prctl(2)
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def variables_of(program: Program, around: Mapping[str, str]) -> dict[str, str]:
    """Its own variables, and those of `around` that it may have."""
    passed = dict(around) if program.listed is None else inherited(around, program.listed)
    return passed | dict(program.environment)


def say_withheld(program: Program, around: Mapping[str, str], log: int) -> None:
    """Write into its open log which variables it does not get, where there are any."""
    if program.listed is not None and (words := first_word(withheld(around, program.listed))):
        with suppress(OSError):  # a full disk
            os.write(log, f"{words}\n".encode())


def confine() -> None:
    """From now on this process, and all that it starts, cannot gain rights by a program such as sudo.

    Linux alone has it. Raises OSError.
    """
    if _libc is not None and _libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def leave_no_core_dumps() -> None:
    """A process of the stack that crashes writes no file with keys, requests and answers."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
