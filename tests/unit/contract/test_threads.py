"""Where the system gives no more threads, work is done all the same, or known not to be done, and never done twice."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from contract.threads import begun, begun_or_done, in_thread
from tests.support.thread_limit import no_more_threads


def test_what_a_pool_has_no_thread_for_is_not_done_later() -> None:
    """A pool keeps it in its queue, and another of its threads takes it up: a server was asked by two at a time."""
    done: list[str] = []
    may_end = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = begun(pool, may_end.wait)
        with no_more_threads():
            assert begun(pool, lambda: done.append("never")) is None
            assert begun_or_done(pool, lambda: done.append("here")).result() is None
        may_end.set()
        assert first is not None
        assert first.result(30)
    assert done == ["here"]


def test_a_pool_that_was_closed_begins_nothing() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    assert begun(pool, lambda: 1) is None
    assert begun_or_done(pool, lambda: 1).result() == 1


def test_what_was_done_here_raises_where_its_result_is_asked_for() -> None:
    with ThreadPoolExecutor(1) as pool, no_more_threads():
        failed = begun_or_done(pool, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failed.result()


def test_an_event_loop_without_threads_does_the_work_itself_and_once() -> None:
    done: list[threading.Thread] = []

    async def asked() -> None:
        await in_thread(lambda: done.append(threading.current_thread()))
        with no_more_threads():
            await asyncio.gather(*(in_thread(lambda: done.append(threading.current_thread())) for _ in range(3)))

    asyncio.run(asked())
    assert len(done) == 4
    assert done[0] is not threading.main_thread()


def test_an_error_of_the_work_is_no_lack_of_threads() -> None:
    """It is raised, and the work is not done again."""
    done: list[int] = []

    def fails() -> None:
        done.append(1)
        raise RuntimeError("of its own")

    with suppress(RuntimeError):
        asyncio.run(in_thread(fails))
    with ThreadPoolExecutor(1) as pool, suppress(RuntimeError):
        begun_or_done(pool, fails).result()
    assert len(done) == 2
