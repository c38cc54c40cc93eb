"""Workers forked from one process, which starts them again when they end until it is asked to end itself. Linux only.

Until its first fork that process must have a single thread: no other one would be there in a worker, and what it held
would stay locked. Imports nothing of ours: see `model_server`.
"""

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
STARTED_AFTER_S = 5.0  # a worker that lived for so long has started well, and is replaced at once
_END = (signal.SIGTERM, signal.SIGINT)
_WATCHED = (signal.SIGCHLD, *_END)


class Workers:
    """A fixed number of workers.

    Args:
        work: what each does, by its 1-based number. It ends the worker by returning.
        count: how many there are.
        before_end: what their server does when it is asked to end, before they are.
    """

    def __init__(
        self, work: Callable[[int], None], count: int, *, before_end: Callable[[], None] = lambda: None
    ) -> None:
        self._work, self._before_end = work, before_end
        self._is_ending = False
        self._running: dict[int, tuple[int, float]] = {}  # number and start of each, by pid
        self._due_s = dict.fromkeys(range(1, count + 1), 0.0)  # when to start those that do not run, by number
        self._failures = dict.fromkeys(range(1, count + 1), 0)  # short lives in a row, by number

    def run(self) -> None:
        """Return when this process was asked to end and every worker has ended."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where a model's modules ignore it, nobody could be waited for
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)  # they are waited for; a handler would only run in between
        self._start_due()
        while self._next_signal() not in _END:
            self._note_ends()
            self._start_due()
        self._is_ending = True
        self._before_end()
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)
        while self._running:
            self._note_ends(is_waiting=True)

    def _next_signal(self) -> int | None:
        """The next one; None when a worker is to be started before any comes."""
        if not self._due_s:
            return signal.sigwait(_WATCHED)
        got = signal.sigtimedwait(_WATCHED, max(0.0, min(self._due_s.values()) - time.monotonic()))
        return got.si_signo if got else None

    def _start_due(self) -> None:
        for number in [number for number, due_s in self._due_s.items() if due_s <= time.monotonic()]:
            del self._due_s[number]
            try:
                self._running[_forked(self._work, number)] = number, time.monotonic()
            except OSError as error:  # no memory, or no more processes, for the moment
                say(f"worker {number} could not be started: {error}")
                self._wait_to_start(number, lived_s=0.0)

    def _note_ends(self, *, is_waiting: bool = False) -> None:
        for pid in list(
            self._running
        ):  # and no other child: a model's modules may have started some, and wait for them
            ended, status = os.waitpid(pid, 0 if is_waiting else os.WNOHANG)
            if not ended:
                continue
            number, began_s = self._running.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            is_asked = self._is_ending and code in (0, -signal.SIGTERM)
            say(f"worker {number}, pid {pid}, ended{' as asked' if is_asked else f': exit code {code}'}")
            self._wait_to_start(number, lived_s=time.monotonic() - began_s)

    def _wait_to_start(self, number: int, *, lived_s: float) -> None:
        failures = 0 if lived_s > STARTED_AFTER_S else self._failures[number] + 1
        self._failures[number] = failures
        wait_s = min(2.0 ** (failures - 2), LONGEST_WAIT_S) if failures > 1 else 0.0
        self._due_s[number] = time.monotonic() + wait_s


def say(text: str) -> None:
    """Write a line to the log; a full disk ends no server. Nothing is left in a buffer that a fork would copy."""
    with suppress(OSError):
        os.write(1, f"{text}\n".encode())


def reseed() -> None:
    """Let random numbers be a worker's own: else all would draw the same ones, and each that replaces one, too."""
    random.seed()
    if numpy := sys.modules.get("numpy.random"):
        numpy.seed()
    if torch := sys.modules.get("torch"):
        torch.manual_seed(int.from_bytes(os.urandom(8), "little"))


def _forked(work: Callable[[int], None], number: int) -> int:
    """Let a new process work. Returns its pid."""
    return os.fork() or _end_after(work, number)


def _end_after(work: Callable[[int], None], number: int) -> NoReturn:
    """Never returns to what its process was forked from."""
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
    except BaseException:  # noqa: BLE001 - as above
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
