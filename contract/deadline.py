"""Until when work may wait for others: one time for all that is asked in a block, however many servers are asked."""

import errno
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

_until_s: ContextVar[float] = ContextVar("until_s", default=math.inf)  # on the steady clock


@contextmanager
def within(limit_s: float) -> Iterator[None]:
    """Whoever waits in this block waits for at most `limit_s` seconds in all, and no longer than a block around it.

    It holds for threads, too, that get a copy of the context.
    """
    with by(time.monotonic() + limit_s):
        yield


@contextmanager
def by(at_s: float) -> Iterator[None]:
    """The same until a time of the steady clock."""
    token = _until_s.set(min(at_s, _until_s.get()))
    try:
        yield
    finally:
        _until_s.reset(token)


@contextmanager
def anew(limit_s: float) -> Iterator[None]:
    """What must be done all the same, when a block around this one has no time left: it has `limit_s` seconds."""
    token = _until_s.set(time.monotonic() + limit_s)
    try:
        yield
    finally:
        _until_s.reset(token)


def until_s() -> float:
    """The time, on the steady clock; inf: there is none."""
    return _until_s.get()


def left_s(most_s: float = math.inf) -> float:
    """Seconds that are left, at most `most_s`; 0: it is over."""
    return max(0.0, min(most_s, _until_s.get() - time.monotonic()))


def ended_within(limit_s: float, work: Callable[[], T]) -> T:
    """What `work` gives, of another project's that keeps to no deadline. Raises what it raises.

    Raises: TimeoutError where it takes longer; it goes on in a thread that nobody waits for. OSError where the system
        gives no thread, and nothing was begun.
    """
    ended: Future[T] = Future()

    def run() -> None:
        try:
            ended.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised by whoever waits
            ended.set_exception(error)

    try:
        threading.Thread(target=run, name="left-alone", daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    return ended.result(left_s(min(limit_s, threading.TIMEOUT_MAX)))
