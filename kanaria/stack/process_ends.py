"""Reports at once the end of processes that are not children of this one, by Linux's pidfd."""

import os
import sys
from collections.abc import Collection
from contextlib import suppress

from kanaria.stack.identity import Identity


class ProcessEnds:
    """One file per process, which becomes readable when the process has ended."""

    def __init__(self) -> None:
        self._files: dict[Identity, int] = {}

    def of(self, processes: Collection[Identity]) -> tuple[int, ...] | None:
        """The files of these living processes; the files of others are closed. None if a process has no file."""
        for process in self._files.keys() - set(processes):
            os.close(self._files.pop(process))
        for process in processes:
            if process not in self._files:
                if (file := _opened(process)) is None:
                    return None
                self._files[process] = file
        return tuple(self._files.values())


def _opened(process: Identity) -> int | None:
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):  # this Python was built for a system without it
        return None
    try:
        file = os.pidfd_open(process.pid)
    except OSError:
        return None
    with suppress(OSError):  # it cannot be found out
        if process.is_alive:  # and its pid was not given to another process
            return file
    os.close(file)
    return None
