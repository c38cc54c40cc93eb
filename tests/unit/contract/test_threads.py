"""Where the system gives no more threads, work is done all the same, or known not to be done, and never done twice."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from gc import collect
from weakref import ref

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


class Work:
    def __call__(self) -> str:
        return "done"


def test_what_is_tried_again_and_again_is_not_kept() -> None:
    """Some kilobytes each second, for as long as there was no thread."""
    with ThreadPoolExecutor(2) as pool:
        kept: list[ref[Work]] = []
        with no_more_threads():
            for _ in range(20):
                work = Work()
                kept.append(ref(work))
                assert begun(pool, work) is None
                del work
        collect()
        assert sum(each() is not None for each in kept) <= 1
        later = begun(pool, Work())
        assert later is not None
        assert later.result(30) == "done"


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
