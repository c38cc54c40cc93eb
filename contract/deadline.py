"""A deadline for a block of work: one limit for all requests in the block, however many servers are asked."""

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
    """All waits in this block take at most `limit_s` seconds together, and no longer than an enclosing block allows.

    The limit also holds for threads that get a copy of the context.
    """
    with by(time.monotonic() + limit_s):
        yield


@contextmanager
def by(at_s: float) -> Iterator[None]:
    """As `within`, until the time `at_s` of the monotonic clock."""
    token = _until_s.set(min(at_s, _until_s.get()))
    try:
        yield
    finally:
        _until_s.reset(token)


@contextmanager
def own_deadline(limit_s: float) -> Iterator[None]:
    """Give a block `limit_s` seconds of its own, for work that must be done even if no time is left outside."""
    token = _until_s.set(time.monotonic() + limit_s)
    try:
        yield
    finally:
        _until_s.reset(token)


def until_s() -> float:
    """The deadline, on the monotonic clock; inf: there is none."""
    return _until_s.get()


def left_s(most_s: float = math.inf) -> float:
    """Seconds left until the deadline, at most `most_s`; 0: it has passed."""
    return max(0.0, min(most_s, _until_s.get() - time.monotonic()))


def ended_within(limit_s: float, work: Callable[[], T]) -> T:
    """The result of `work`, code of another project that keeps to no deadline. Raises what `work` raises.

    Raises: TimeoutError if it takes longer; it continues in a thread that nothing waits for. OSError if the system
        has no thread for it; then nothing was started.
    """
    ended: Future[T] = Future()

    def run() -> None:
        try:
            ended.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
            ended.set_exception(error)

    try:
        threading.Thread(target=run, name="left-alone", daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    return ended.result(left_s(min(limit_s, threading.TIMEOUT_MAX)))
