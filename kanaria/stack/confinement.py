"""What a program gets of its surroundings: some variables of the operator's, no way to more rights, or a sandbox."""

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
    """Its own variables, and those of `around` that it may have."""
    passed = dict(around) if program.listed is None else inherited(around, program.listed)
    return passed | dict(program.environment)


def say_withheld(program: Program, around: Mapping[str, str], log: int) -> None:
    """Write into its open log which variables it does not get, where there are any."""
    if program.listed is not None and (words := first_word(withheld(around, program.listed))):
        with suppress(OSError):  # a full disk
            os.write(log, f"{words}\n".encode())


def offered(program: Program, log: int) -> Sandbox | None:
    """The sandbox of a program; None where it has none, or the machine offers none, as is said in its open log.

    Raises SetupError where it must have one, OSError.
    """
    wanted = program.sandbox
    return wanted if wanted and is_offered(wanted, lambda text: _say(log, text)) else None


def confinement(program: Program, log: int, sandbox: Sandbox | None) -> Callable[[], None] | None:
    """What its process does to itself before it becomes `program`, in `sandbox`; None: nothing."""
    if not program.is_confined and sandbox is None:
        return None

    def begin() -> None:
        try:
            confine()
            if sandbox is not None:
                enter(sandbox)
        except OSError as error:
            _say(log, f"OSError: it could not be confined: {error}")
            raise

    return begin


def _say(log: int, text: str) -> None:
    with suppress(OSError):  # a full disk
        os.write(log, f"{text}\n".encode())


def is_offered(given: Sandbox, say: Callable[[str], None]) -> bool:
    """Whether the machine offers it; where not, says why. Raises SetupError where it is required, OSError."""
    reason = lacking()
    if reason and given.is_required:
        raise refused(reason)
    if reason:
        say(f"not in a sandbox: {reason}")
    return not reason


def refused(reason: str) -> SetupError:
    """What to say where the sandbox that is required is not there for `reason`."""
    return SetupError(
        "this machine offers no sandbox, which KANARIA_SANDBOX=required asks for",
        saw=reason,
        do="allow what is missing, or KANARIA_SANDBOX=auto, which runs versions without one",
    )


def confine() -> None:
    """From now on this process, and all that it starts, cannot gain rights by a program such as sudo.

    Linux alone has it. Raises OSError.
    """
    if _libc is not None and _libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def leave_no_core_dumps() -> None:
    """A process of the stack that crashes writes no file with keys, requests and answers."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
