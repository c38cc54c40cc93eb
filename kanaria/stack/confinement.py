"""Confines a program: it gets only some variables of the operator, cannot gain rights, and may get a sandbox."""

import ctypes
import os
import resource
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress

from kanaria.errors import SetupError
from kanaria.stack.inherited import first_word, inherited, withheld
from kanaria.stack.sandbox import Sandbox, enter, lacking
from kanaria.stack.supervision import Program

_SET_NO_NEW_PRIVILEGES = 38  # of prctl(2)
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def variables_of(program: Program, around: Mapping[str, str]) -> dict[str, str]:
    """The program's own variables, and those of `around` that it may have."""
    passed = dict(around) if program.listed is None else inherited(around, program.listed)
    return passed | dict(program.environment)


def say_withheld(program: Program, around: Mapping[str, str], log: int) -> None:
    """Write into its open log which variables it does not get, if there are any."""
    if program.listed is not None and (words := first_word(withheld(around, program.listed))):
        with suppress(OSError):  # a full disk
            os.write(log, f"{words}\n".encode())


def offered(program: Program, log: int) -> Sandbox | None:
    """The sandbox of a program; None if it has none, or if the machine offers none, which its open log then says.

    Raises: SetupError if the sandbox is required and not offered; OSError.
    """
    wanted = program.sandbox
    return wanted if wanted and is_offered(wanted, lambda text: _say(log, text)) else None


def confinement(program: Program, log: int, sandbox: Sandbox | None) -> Callable[[], None] | None:
    """A function for the new process to call before it becomes `program`, which enters `sandbox`; None: not needed."""
    if not program.is_confined and sandbox is None:
        return None

    def begin() -> None:
        try:
            confine()
            if sandbox is not None:
                enter(sandbox)
        except OSError as error:
            _say(log, f"OSError: the process could not be confined: {error}")
            raise

    return begin


def _say(log: int, text: str) -> None:
    with suppress(OSError):  # a full disk
        os.write(log, f"{text}\n".encode())


def is_offered(given: Sandbox, say: Callable[[str], None]) -> bool:
    """Whether the machine offers the sandbox; if not, prints why. Raises SetupError if it is required; OSError."""
    reason = lacking()
    if reason and given.is_required:
        raise refused(reason)
    if reason:
        say(f"runs without a sandbox: {reason}")
    return not reason


def refused(reason: str) -> SetupError:
    """The error for a required sandbox that the machine does not offer."""
    return SetupError(
        "this machine offers no sandbox, which KANARIA_SANDBOX=required asks for",
        saw=reason,
        do="allow what is missing, or set KANARIA_SANDBOX=auto, which then runs versions without one",
    )


def confine() -> None:
    """Keep this process and its children from gaining rights by a program such as sudo. Only on Linux.

    Raises OSError.
    """
    if _libc is not None and _libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def leave_no_core_dumps() -> None:
    """Turn off core dumps of this process: they would contain keys, requests and answers."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
