"""Which process of this machine is meant, and whether it lives. Commands ask it, so it imports little.

Where that cannot be looked up just now, for want of a file to open or of memory, nobody knows: OSError is raised, and
no process is taken for ended.
"""

import errno
import functools
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # of Linux
_LONGEST_STAT = 4096  # bytes of 52 numbers and a name
_SAME_START_S = 0.05  # a start time is kept to the hundredth of a second


@dataclass(frozen=True, slots=True)
class Identity:
    """One process; another one that gets its number later has another start time."""

    pid: int
    started_s: float  # since boot on Linux, where the wall clock may be set; Unix time elsewhere

    @property
    def is_alive(self) -> bool:
        """Whether it still runs. A process that ended and was not waited for does not. Raises OSError: nobody knows."""
        started_s = start_of(self.pid)
        return started_s is not None and abs(started_s - self.started_s) < _SAME_START_S

    @property
    def processes(self) -> "list[psutil.Process]":
        """This process, where it still runs. Raises OSError."""
        import psutil  # noqa: PLC0415 - slow, and who only asks whether it lives does without

        with suppress(psutil.Error):
            return [psutil.Process(self.pid)] if self.is_alive else []
        return []

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """The process with this number now; None when there is none. Raises OSError."""
        started_s = start_of(pid)
        return None if started_s is None else cls(pid, started_s)


@functools.cache
def boot() -> str:
    """Which start of this machine this is; "" where the system does not tell. Raises OSError."""
    with suppress(FileNotFoundError, PermissionError):  # a sandbox that shows little of /proc
        return _BOOT_ID.read_text().strip()
    return ""


def start_of(pid: int) -> float | None:
    """When the living process `pid` started, as `Identity` has it; None when there is none.

    Raises: OSError where nobody knows. PermissionError: there is one, and this user may not look at it.
    """
    if pid <= 0:
        return None
    return _start_by_kernel(pid) if sys.platform == "linux" else _start_by_psutil(pid)


def _start_by_kernel(pid: int) -> float | None:
    # psutil adds the time of the boot, which moves whenever the clock is set: then nothing would be found again.
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)  # a Path takes twice as long as all the rest
    except FileNotFoundError as error:
        if _exists(pid):  # where /proc is mounted with `hidepid`
            raise PermissionError(errno.EACCES, "it is hidden from this user", error.filename) from error
        return None
    try:
        fields = os.read(file, _LONGEST_STAT).rpartition(b")")[2].split()
    except ProcessLookupError:  # it ended meanwhile
        return None
    finally:
        os.close(file)
    if not fields or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no number of a process
        return False
    except PermissionError:
        pass
    return True


def _start_by_psutil(pid: int) -> float | None:
    import psutil  # noqa: PLC0415 - likewise

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.AccessDenied as error:
        raise PermissionError(errno.EACCES, f"process {pid} is hidden from this user") from error
    except psutil.Error:
        return None
