"""Sees at once that processes end which are no children of this one, where the system can: by Linux's pidfd."""

import os
import sys
from collections.abc import Collection
from contextlib import suppress

from kanaria.stack.identity import Identity


class ProcessEnds:
    """A file for each of some processes, which can be read from once that one has ended."""

    def __init__(self) -> None:
        self._files: dict[Identity, int] = {}

    def of(self, processes: Collection[Identity]) -> tuple[int, ...] | None:
        """The files of these living processes; those of others are closed. None where not each of them has one."""
        for process in self._files.keys() - set(processes):
            os.close(self._files.pop(process))
        for process in processes:
            if process not in self._files:
                if (file := _opened(process)) is None:
                    return None
                self._files[process] = file
        return tuple(self._files.values())


def _opened(process: Identity) -> int | None:
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):  # a Python that was built for old systems
        return None
    try:
        file = os.pidfd_open(process.pid)
    except OSError:
        return None
    with suppress(OSError):  # nobody knows
        if process.is_alive:  # and no other one got its number
            return file
    os.close(file)
    return None
