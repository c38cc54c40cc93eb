"""Forks workers from one process and restarts those that end, until the process is asked to end. Linux only.

Until its first fork that process must have a single thread: other threads do not exist in a worker, and the locks they
held would stay locked. Imports nothing of ours: see `model_server`.
"""

import mmap
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

LONGEST_WAIT_S = 20.0  # before another attempt
STABLE_AFTER_S = 5.0  # a worker that lived this long has started well: when it ends, it is replaced at once
ATTEMPTS = 2  # to start each worker, before the server gives up
_END = (signal.SIGTERM, signal.SIGINT)
_WATCHED = (signal.SIGCHLD, *_END)


class Workers:
    """A fixed number of workers.

    Args:
        work: the job of a worker, called with its 1-based number. It calls `report_started` when it can serve. The
            worker ends when it returns.
        count: number of workers.
        before_end: called when the server is asked to end, before the workers are.
    """

    def __init__(
        self, work: Callable[[int], None], count: int, *, before_end: Callable[[], None] = lambda: None
    ) -> None:
        self._work, self._before_end = work, before_end
        self._is_ending = False
        self._running: dict[int, tuple[int, float]] = {}  # number and start of each, by pid
        self._due_s = dict.fromkeys(range(1, count + 1), 0.0)  # when to start those that do not run, by number
        self._failures = dict.fromkeys(range(1, count + 1), 0)  # short lives in a row, by number
        self._ends = dict.fromkeys(range(1, count + 1), 0)  # how often each ended, by number
        self._has_started = mmap.mmap(-1, 1)  # whether any worker ever reported it; all of them share this byte

    def report_started(self) -> None:
        """Record, in a worker, that it can serve."""
        self._has_started[0] = 1

    def run(self) -> None:
        """Run until this process is asked to end and every worker has ended.

        Raises SystemExit if each worker ended twice and none has ever started: they have the cause in common, and the
        keeper has to see it.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a model's modules may ignore it, and then `waitpid` fails
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)  # for `sigwait`
        self._start_due()
        while self._next_signal() not in _END:
            self._note_ends()
            if not self._has_started[0] and min(self._ends.values()) >= ATTEMPTS:
                say("no worker has started")
                self._end()
                sys.exit(1)
            self._start_due()
        self._end()

    def _end(self) -> None:
        self._is_ending = True
        self._before_end()
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)
        while self._running:
            self._note_ends(is_waiting=True)

    def _next_signal(self) -> int | None:
        """The next signal; None if a worker must be started first."""
        if not self._due_s:
            return signal.sigwait(_WATCHED)
        got = signal.sigtimedwait(_WATCHED, max(0.0, min(self._due_s.values()) - time.monotonic()))
        return got.si_signo if got else None

    def _start_due(self) -> None:
        for number in [number for number, due_s in self._due_s.items() if due_s <= time.monotonic()]:
            del self._due_s[number]
            try:
                self._running[_forked(self._work, number)] = number, time.monotonic()
            except OSError as error:  # out of memory or processes for the moment
                say(f"worker {number} could not be started: {error}")
                self._wait_to_start(number, lived_s=0.0)

    def _note_ends(self, *, is_waiting: bool = False) -> None:
        # Only workers: a model's modules may have started other children, and wait for them.
        for pid in list(self._running):
            ended, status = os.waitpid(pid, 0 if is_waiting else os.WNOHANG)
            if not ended:
                continue
            number, began_s = self._running.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            is_asked = self._is_ending and code in (0, -signal.SIGTERM)
            say(f"worker {number}, pid {pid}, ended{' as asked' if is_asked else f': exit code {code}'}")
            self._ends[number] += 1
            self._wait_to_start(number, lived_s=time.monotonic() - began_s)

    def _wait_to_start(self, number: int, *, lived_s: float) -> None:
        failures = 0 if lived_s > STABLE_AFTER_S else self._failures[number] + 1
        self._failures[number] = failures
        wait_s = min(2.0 ** (failures - 2), LONGEST_WAIT_S) if failures > 1 else 0.0
        self._due_s[number] = time.monotonic() + wait_s


def say(text: str) -> None:
    """Write a line to the log, unbuffered: a fork would copy a buffer. A full disk does not end the server."""
    with suppress(OSError):
        os.write(1, f"{text}\n".encode())


def reseed() -> None:
    """Seed the random generators again. Otherwise all workers and their replacements draw the same numbers."""
    random.seed()
    if numpy := sys.modules.get("numpy.random"):
        numpy.seed()
    if torch := sys.modules.get("torch"):
        torch.manual_seed(int.from_bytes(os.urandom(8), "little"))


def _forked(work: Callable[[int], None], number: int) -> int:
    """Run `work` in a new process. Returns its pid."""
    return os.fork() or _end_after(work, number)


def _end_after(work: Callable[[int], None], number: int) -> NoReturn:
    """Run `work` and exit: the code that called `fork` must not go on in the child."""
    code = 1
    try:
        for each in _WATCHED:
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        reseed()
        work(number)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - must not go on in the child
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
