"""Runs a task for many items, spread over processes, and returns the results in order.

A task must draw its randomness from its item, so that results do not depend on the number of processes.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import TypeVar

_CHUNK = 4  # items handed over at once

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """A number of processes; with one, everything runs in the current process."""

    def __init__(self, jobs: int) -> None:
        # A new interpreter for each: a fork of this process would copy the locks of its threads.
        context = multiprocessing.get_context("spawn")
        self._pool = (
            ProcessPoolExecutor(jobs, mp_context=context, initializer=_leave_interrupts_to_the_parent)
            if jobs > 1
            else None
        )

    def each(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results of `task` for every item, in order and as soon as each is done.

        A task is a function of a module, or a `partial` of one.
        """
        return self._pool.map(task, items, chunksize=_CHUNK) if self._pool else map(task, items)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
