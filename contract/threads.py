"""Runs work in another thread, or in this one if the system has no thread left: other programs may use them all.

A pool then raises RuntimeError, but has already queued the work: another thread of the pool may still do it.
"""

from asyncio import to_thread, wrap_future
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from threading import Thread
from typing import TypeVar
from weakref import WeakSet

T = TypeVar("T")

# Pools whose queue holds cancelled work: none of their threads has been free since.
_STUCK: WeakSet[Executor] = WeakSet()


def begun(pool: Executor, work: Callable[[], T]) -> Future[T] | None:
    """Start `work` in a thread of `pool`; None if the pool has no thread for it and will never run it."""
    if pool in _STUCK and not _can_start_thread():  # otherwise the queue would grow with each try
        return None
    ended: Future[T] = Future()

    def run() -> None:
        if ended.set_running_or_notify_cancel():
            _do(work, ended)
        else:
            _STUCK.discard(pool)

    try:
        pool.submit(copy_context().run, run)
    except RuntimeError:
        _STUCK.add(pool)
        if ended.cancel():
            return None
        _STUCK.discard(pool)
    return ended


def begun_or_done(pool: Executor, work: Callable[[], T]) -> Future[T]:
    """As `begun`; if the pool has no thread, `work` runs in this thread."""
    ended = begun(pool, work)
    if ended is None:
        ended = Future()
        _do(work, ended)
    return ended


async def in_thread(work: Callable[[], T], *, by: Callable[[Callable[[], None]], Awaitable[None]] = to_thread) -> T:
    """The result of `work`, run in a thread, or in the event loop if the system has no thread. Raises what it raises.

    `work` must be short: if it runs in the event loop, nothing else is answered meanwhile.

    Args:
        by: runs a function in a thread; raises RuntimeError if it has none.
    """
    ended: Future[T] = Future()

    def run() -> None:
        if ended.set_running_or_notify_cancel():
            _do(work, ended)

    try:
        await by(run)
    except RuntimeError:
        if ended.cancel():
            return work()
    return await wrap_future(ended)


def _can_start_thread() -> bool:
    """Whether the system can start another thread."""
    try:
        Thread(target=int).start()
    except RuntimeError:
        return False
    return True


def _do(work: Callable[[], T], ended: Future[T]) -> None:
    try:
        ended.set_result(work())
    except BaseException as error:  # noqa: BLE001 - reading the result raises it
        ended.set_exception(error)
