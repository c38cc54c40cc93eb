"""The same task for many numbers, spread over processes, with the results in order.

Results depend on the numbers alone, never on how many processes worked: a task draws its randomness from its number.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

_CHUNK = 4  # numbers handed over at once

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(task: Callable[[Item], Result], items: Iterable[Item], *, jobs: int) -> Iterator[Result]:
    """`task` of every item, in order, as soon as it is known.

    Args:
        task: can be pickled, as a function of a module or a `partial` of one.
        jobs: processes; with 1 everything happens in this one.
    """
    if jobs == 1:
        yield from map(task, items)
        return
    # A fresh interpreter each: a copy of this process would share the locks of its threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_leave_interrupts_to_the_parent)
    try:
        yield from pool.map(task, items, chunksize=_CHUNK)
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
