"""Work in another thread, or here where the system gives none: its limit may be reached by whatever else runs there.

A pool says so with a RuntimeError, and has put the work into its queue before: another of its threads may still do it.
"""

from asyncio import to_thread, wrap_future
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from threading import Thread
from typing import TypeVar
from weakref import WeakSet

T = TypeVar("T")

# Pools with something in their queue that was given up: none of their threads was free since.
_STUCK: WeakSet[Executor] = WeakSet()


def begun(pool: Executor, work: Callable[[], T]) -> Future[T] | None:
    """What `work` will give, in a thread of `pool`; None where it has none, and is never going to do this."""
    if pool in _STUCK and not _is_another_to_be_had():  # or the queue would grow with each try
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
    """The same; where the pool has no thread for it, it has been done here."""
    ended = begun(pool, work)
    if ended is None:
        ended = Future()
        _do(work, ended)
    return ended


async def in_thread(work: Callable[[], T], *, by: Callable[[Callable[[], None]], Awaitable[None]] = to_thread) -> T:
    """What `work` gives, done beside the event loop, or in it where the system gives no thread. Raises what it raises.

    For what is short: meanwhile the event loop may answer nobody.

    Args:
        by: does something in a thread; raises RuntimeError where it has none.
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


def _is_another_to_be_had() -> bool:
    """Whether the system gives a thread."""
    try:
        Thread(target=int).start()
    except RuntimeError:
        return False
    return True


def _do(work: Callable[[], T], ended: Future[T]) -> None:
    try:
        ended.set_result(work())
    except BaseException as error:  # noqa: BLE001 - it is raised by whoever asks for the result
        ended.set_exception(error)
