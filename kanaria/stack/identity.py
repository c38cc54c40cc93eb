"""Identifies a process of this machine and tells whether it lives. Commands import it, so it imports little.

If a process cannot be looked up because the machine is out of file descriptors or memory, OSError is raised: a process
that cannot be inspected is not treated as ended.
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
_LONGEST_STAT = 4096  # bytes, enough for 52 numbers and a name
_SAME_START_S = 0.05  # start times have a resolution of 0.01 s


@dataclass(frozen=True, slots=True)
class Identity:
    """One process. A later process with the same pid has another start time."""

    pid: int
    started_s: float  # since boot on Linux, independent of the wall clock; Unix time elsewhere

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not. Raises OSError if it cannot be found out."""
        started_s = start_of(self.pid)
        return started_s is not None and abs(started_s - self.started_s) < _SAME_START_S

    @property
    def processes(self) -> "list[psutil.Process]":
        """This process, if it still runs. Raises OSError."""
        import psutil  # noqa: PLC0415 - a slow import that `is_alive` does not need

        with suppress(psutil.Error):
            return [psutil.Process(self.pid)] if self.is_alive else []
        return []

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """The process that has this pid now; None if there is none. Raises OSError."""
        started_s = start_of(pid)
        return None if started_s is None else cls(pid, started_s)


@functools.cache
def boot() -> str:
    """The id of this boot of the machine; "" if the system does not tell. Raises OSError."""
    with suppress(FileNotFoundError, PermissionError):  # a sandbox that shows little of /proc
        return _BOOT_ID.read_text().strip()
    return ""


def start_of(pid: int) -> float | None:
    """The start time of the living process `pid`, as in `Identity`; None if there is none.

    Raises: OSError if it cannot be found out; PermissionError if it exists and this user cannot inspect it.
    """
    if pid <= 0:
        return None
    return _start_by_kernel(pid) if sys.platform == "linux" else _start_by_psutil(pid)


def _start_by_kernel(pid: int) -> float | None:
    # psutil adds the boot time, which changes whenever the clock is set: recorded start times would then not match.
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)  # pathlib would triple the time
    except FileNotFoundError as error:
        if _exists(pid):  # /proc is mounted with `hidepid`
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
    except (ProcessLookupError, OverflowError):  # OverflowError: not a possible pid
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
