"""Write in batches what requests leave behind: off their path, and last to be given a core."""

import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

GATHER_S = 0.02  # whoever asks for a turn waits this long for others to come along
NICENESS = 10  # 0 to 19; a core goes to whoever answers requests first


class BackgroundWriter(ABC):
    """Takes a turn every `every_s` seconds, or soon when asked, on a thread of its own while it is entered.

    Args:
        name: of the thread.
        every_s: seconds.
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
        """Do not wait for the next turn's time."""
        self._wanted.set()

    @abstractmethod
    def _turn(self, is_last: bool) -> None:
        """Write what waits. What it raises ends the thread."""

    def _run(self) -> None:
        if sys.platform == "linux":  # elsewhere a priority belongs to the process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        is_last = False
        while not is_last:
            if self._wanted.wait(self._every_s) and not self._is_stopping:
                time.sleep(GATHER_S)
            self._wanted.clear()
            is_last = self._is_stopping
            self._turn(is_last)
