"""A background thread that writes log entries in batches, off the request path and at low priority."""

import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

GATHER_S = 0.02  # a turn that was asked for waits this long, so that more entries share it
NICENESS = 10  # 0 to 19; threads that answer requests get a core first


class BackgroundWriter(ABC):
    """Takes a turn every `every_s` seconds, or soon after `_soon`, on its own thread while its `with` block runs.

    Args:
        name: of the thread.
        every_s: seconds between turns.
    """

    def __init__(self, name: str, *, every_s: float) -> None:
        self._every_s = every_s
        self._wanted = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take a last turn, then stop."""
        self._is_stopping = True
        self._wanted.set()
        self._thread.join()

    def _soon(self) -> None:
        """Take the next turn now rather than on time."""
        self._wanted.set()

    @abstractmethod
    def _turn(self, is_last: bool) -> None:
        """Write what is waiting. An exception ends the thread."""

    def _run(self) -> None:
        if sys.platform == "linux":  # on other systems priority belongs to the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        is_last = False
        while not is_last:
            if self._wanted.wait(self._every_s) and not self._is_stopping:
                time.sleep(GATHER_S)
            self._wanted.clear()
            is_last = self._is_stopping
            self._turn(is_last)
