"""When the system is out of threads, work is done by the caller or is known not to be done, and never twice."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from gc import collect
from weakref import ref

import pytest

from contract.threads import begun, begun_or_done, in_thread
from tests.support.thread_limit import no_more_threads


def test_work_that_got_no_thread_is_not_done_later() -> None:
    """A pool keeps such work in its queue and does it later, so a server received two requests at a time."""
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


def test_retried_work_is_not_kept_in_memory() -> None:
    """The memory grew by some kilobytes each second while there was no thread."""
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


def test_a_closed_pool_starts_no_work() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    assert begun(pool, lambda: 1) is None
    assert begun_or_done(pool, lambda: 1).result() == 1


def test_work_done_by_the_caller_raises_when_its_result_is_read() -> None:
    with ThreadPoolExecutor(1) as pool, no_more_threads():
        failed = begun_or_done(pool, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failed.result()


def test_an_event_loop_without_threads_does_the_work_itself_once() -> None:
    done: list[threading.Thread] = []

    async def asked() -> None:
        await in_thread(lambda: done.append(threading.current_thread()))
        with no_more_threads():
            await asyncio.gather(*(in_thread(lambda: done.append(threading.current_thread())) for _ in range(3)))

    asyncio.run(asked())
    assert len(done) == 4
    assert done[0] is not threading.main_thread()


def test_an_error_of_the_work_is_not_mistaken_for_a_lack_of_threads() -> None:
    """The error is raised, and the work is not done again."""
    done: list[int] = []

    def fails() -> None:
        done.append(1)
        raise RuntimeError("of its own")

    with suppress(RuntimeError):
        asyncio.run(in_thread(fails))
    with ThreadPoolExecutor(1) as pool, suppress(RuntimeError):
        begun_or_done(pool, fails).result()
    assert len(done) == 2
