"""A background thread that writes log entries in batches, off the request path and at low priority."""

import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

IDLE_S = 1.0  # between turns while nothing waits to be written
GATHER_S = 0.02  # a requested turn waits this long, so that more entries share it
NICENESS = 10  # 0 to 19; threads that answer requests get a core first
STUCK_S = 60.0  # a thread that finished no turn for so long hangs; waiting for locks takes about half as long
LOG_EVERY_S = 60.0  # a failure that repeats in every turn is logged this often
WORK_S, PAUSE_S = 0.0001, 0.0001  # a request takes about three times as long

log = structlog.get_logger()


class Pauses:
    """Pauses of a thread with long work in Python. Without them, requests would wait 5 ms for the interpreter."""

    def __init__(self) -> None:
        self._since_s = time.perf_counter()

    def take(self) -> None:
        """Let other threads work, if the last pause was a while ago."""
        if time.perf_counter() - self._since_s >= WORK_S:
            time.sleep(PAUSE_S)
            self._since_s = time.perf_counter()


class BackgroundWriter(ABC):
    """Takes a turn every `every_s` seconds, or soon after `_soon`, on its own thread while its `with` block runs.

    While nothing waits to be written, it takes a turn every second.

    Args:
        name: the thread's name.
        every_s: seconds between turns.
        count_failure: called on the thread when something has failed.
    """

    def __init__(self, name: str, *, every_s: float, count_failure: Callable[[], None]) -> None:
        self._name = name
        self._every_s = every_s
        self._count_failure = count_failure
        self._log_at_s: dict[str, float] = {}  # by the name of the failed task
        self._wanted = threading.Event()
        self._is_stopping = self._is_idle = False
        self._finished_s = time.monotonic()  # the last turn
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._finished_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take a last turn, then stop."""
        self._is_stopping = True
        self._wanted.set()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread still takes turns. True even if they fail."""
        return self._thread.is_alive() and time.monotonic() - self._finished_s < self._every_s + STUCK_S

    def _soon(self) -> None:
        """Take the next turn early."""
        self._wanted.set()

    def _given(self) -> None:
        """Wake an idle thread, because something waits to be written."""
        if self._is_idle:
            self._is_idle = False
            self._wanted.set()

    @property
    @abstractmethod
    def _has_waiting(self) -> bool:
        """Whether there is something to write."""

    @abstractmethod
    def _turn(self, is_last: bool) -> None:
        """Write what is waiting. An exception is logged and counted, and does not stop the next turn."""

    def _failed(self, what: str, error: Exception) -> None:
        """Count and log that `what` failed."""
        self._count_failure()
        now_s = time.monotonic()
        if now_s >= self._log_at_s.get(what, now_s):
            self._log_at_s[what] = now_s + LOG_EVERY_S
            log.error("background_failed", thread=self._name, what=what, exc_info=error)

    def _run(self) -> None:
        if sys.platform == "linux":  # on other systems priority belongs to the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        is_last = False
        while not is_last:
            wait_s = max(self._every_s, IDLE_S) if self._is_idle else self._every_s
            if self._wanted.wait(wait_s) and not self._is_stopping:
                time.sleep(GATHER_S)
            self._wanted.clear()
            is_last, had_waiting = self._is_stopping, self._has_waiting
            try:
                self._turn(is_last)
            except Exception as error:  # noqa: BLE001 - no data may stop this thread
                self._failed("turn", error)
            self._finished_s = time.monotonic()
            self._is_idle = not had_waiting
            if self._has_waiting:  # an entry that arrived before the line above did not wake the thread
                self._is_idle = False
