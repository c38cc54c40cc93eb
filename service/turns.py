"""A thread that writes in batches what others hand over: off the request path, and last to be given a core."""

import os
import sys
import threading
import time
from collections.abc import Callable

GATHER_S = 0.02  # whoever asks for a turn waits this long for others to come along
NICENESS = 10  # a core goes to whoever answers requests first; 0-19


class Turns:
    """Calls `work` every `every_s` seconds, or soon when asked, on a thread of its own until it is stopped.

    Args:
        name: of the thread.
        work: is told whether this turn is the last one. What it raises ends the thread.
        every_s: seconds.
    """

    def __init__(self, name: str, work: Callable[[bool], None], *, every_s: float) -> None:
        self._work = work
        self._every_s = every_s
        self._wanted = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def soon(self) -> None:
        """Do not wait for the next turn's time."""
        self._wanted.set()

    def stop(self) -> None:
        """Take a last turn."""
        self._is_stopping = True
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        if sys.platform == "linux":  # elsewhere a priority belongs to the process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        is_last = False
        while not is_last:
            if self._wanted.wait(self._every_s) and not self._is_stopping:
                time.sleep(GATHER_S)
            self._wanted.clear()
            is_last = self._is_stopping
            self._work(is_last)
