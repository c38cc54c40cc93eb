"""Batching: each request gets its own answers or its own error, and the event loop stays free."""

import asyncio
import random
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest

import service.server.batching as module
from contract.answer_types import Labels, Prediction
from contract.model_files import Feature, Schema
from service.contract import Model
from service.server.batching import (
    BACK_AFTER,
    LATE_S,
    MOST_LATE_IN_A_ROW,
    STUCK_DEADLINES,
    Abandoned,
    Batcher,
    BrokenModel,
    Overdue,
    Overloaded,
    predict_rows,
    rows_within,
)
from tests.support.waiting import eventually

LABELS = tuple(str(number) for number in range(100))


class Echo(Model):
    """Answers each row with its number, fails on negative numbers, and waits while `may_answer` is not set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.is_called = threading.Event()
        self.calls: list[int] = []  # rows in each call

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        self.is_called.set()
        self.may_answer.wait(timeout=30)
        self.calls.append(len(batch))
        if (batch < 0).any():
            raise ValueError("negative")
        return torch.nn.functional.one_hot(batch[:, 0].long(), len(LABELS)).float()


@pytest.fixture
def echo(tmp_path: Path) -> Echo:
    number = Feature(name="number", minimum=-1, maximum=99)
    Schema(features=(number,), answer=Labels(labels=LABELS), max_rows=50).write(tmp_path)
    return Echo(tmp_path)


def rows(*numbers: int) -> NDArray[np.float32]:
    return np.array([[number] for number in numbers], dtype=np.float32)


async def labels_of(batcher: Batcher, *numbers: int, connection: object | None = None) -> list[str]:
    return [prediction.label for prediction in await batcher.predict(rows(*numbers), connection=connection)]


def test_each_request_gets_the_answers_to_its_own_rows(echo: Echo) -> None:
    """However requests are batched, the answers go to their own request, in order."""
    wanted = [tuple((start + step) % 100 for step in range(1 + start % 7)) for start in range(100)]

    async def ask() -> list[list[str]]:
        return await asyncio.gather(*(labels_of(batcher, *numbers) for numbers in wanted))

    with Batcher(echo, max_waiting_rows=1000) as batcher:
        assert asyncio.run(ask()) == [[str(number) for number in numbers] for numbers in wanted]


def test_waiting_requests_share_the_next_call(echo: Echo) -> None:
    """Ten requests that arrive while the model is busy are answered by one call."""

    async def ask() -> None:
        echo.may_answer.clear()
        asked = [asyncio.ensure_future(labels_of(batcher, number)) for number in range(11)]
        await asyncio.sleep(0)  # each has put its rows in the queue
        echo.may_answer.set()
        await asyncio.gather(*asked)

    with Batcher(echo, max_waiting_rows=1000) as batcher:
        asyncio.run(ask())
    assert (sum(echo.calls), len(echo.calls) <= 2) == (11, True)


async def turns_of(batcher: Batcher, number: int, connection: object | None) -> int:
    """The number of turns of the event loop that an answer takes."""
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    turn()
    before = turns
    assert await labels_of(batcher, number, connection=connection) == [str(number)]
    return turns - before


def test_repeated_requests_on_one_connection_do_not_wait_for_others(echo: Echo) -> None:
    """No other client is there. After a request of another or an unknown connection, more may be on their way."""
    connections = [("a", 1), ("a", 1), ("b", 1), ("b", 1), ("a", 1), None, None, ("a", 1), ("a", 1)]

    async def ask() -> list[bool]:
        return [await turns_of(batcher, 3, connection) == 0 for connection in connections]

    with Batcher(echo, max_waiting_rows=10, loop_rows=8) as batcher:
        assert asyncio.run(ask()) == [False, True, False, True, False, False, False, False, True]


def test_requests_of_several_connections_share_a_call(echo: Echo) -> None:
    """This includes connections that come after a single one, which is answered before the others arrive."""

    async def ask() -> None:
        await labels_of(batcher, 1, connection=0)
        for _ in range(3):
            await asyncio.gather(*(labels_of(batcher, number, connection=number) for number in range(16)))

    with Batcher(echo, max_waiting_rows=100, loop_rows=32) as batcher:
        asyncio.run(ask())
    assert echo.calls == [1, 1, 15, 16, 16]


def test_a_single_request_gets_the_models_error_and_waits_for_no_other(echo: Echo) -> None:
    """The failed request is not counted, and the next is answered, even if it is so large that it needs the thread."""
    counted: list[str] = []

    async def ask() -> list[str]:
        for _ in range(3):
            with pytest.raises(ValueError, match="negative"):
                await labels_of(batcher, -1, connection="a")
        with pytest.raises(Overloaded):
            await labels_of(batcher, *range(13), connection="a")
        return await labels_of(batcher, 5, connection="a") + await labels_of(batcher, *range(9), connection="a")

    def count(predictions: list[Prediction]) -> None:
        counted.extend(str(prediction.label) for prediction in predictions)

    with Batcher(echo, max_waiting_rows=12, loop_rows=8, count=count) as batcher:
        assert asyncio.run(ask()) == ["5", *map(str, range(9))]
    assert (counted[0], len(counted)) == ("5", 2)


def test_one_failing_request_does_not_fail_the_others_in_its_batch(echo: Echo) -> None:
    """Only the bad request gets the model's error; the others are answered."""

    async def ask() -> list[list[str] | BaseException]:
        echo.may_answer.clear()
        asked = [asyncio.ensure_future(labels_of(batcher, number)) for number in (1, 2, -1, 3)]
        await asyncio.sleep(0)
        echo.may_answer.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    with Batcher(echo, max_waiting_rows=1000) as batcher:
        answers = asyncio.run(ask())
    assert [str(answer) for answer in answers] == ["['1']", "['2']", "negative", "['3']"]


@pytest.mark.parametrize("loop_rows", [0, 50])
def test_each_answered_request_is_counted_once(echo: Echo, loop_rows: int) -> None:
    """On the thread and on the event loop, even if the batch fails and its requests are tried one by one."""
    counted: list[str] = []

    async def ask() -> None:
        asked = (labels_of(batcher, *numbers) for numbers in [(1, 2), (-1,), (3,)])
        await asyncio.gather(*asked, return_exceptions=True)

    def count(predictions: list[Prediction]) -> None:
        counted.extend(str(prediction.label) for prediction in predictions)

    with Batcher(echo, max_waiting_rows=1000, loop_rows=loop_rows, count=count) as batcher:
        asyncio.run(ask())
    assert sorted(counted) in (["1", "3"], ["2", "3"])  # one row of the first request


@pytest.mark.parametrize(("loop_rows", "is_alone"), [(0, False), (50, False), (50, True)])
def test_the_row_that_a_request_counts_by_is_random(echo: Echo, loop_rows: int, is_alone: bool) -> None:
    """Requests with one row all count; of requests with four rows each row counts about a quarter of the time."""
    random.seed(7)
    counted: Counter[str] = Counter()

    async def ask() -> None:
        for _ in range(400):
            if is_alone:
                await labels_of(batcher, 1, 2, 3, 4, connection="a")
                await labels_of(batcher, 9, connection="a")
            else:
                await asyncio.gather(labels_of(batcher, 1, 2, 3, 4), labels_of(batcher, 9))

    def count(predictions: list[Prediction]) -> None:
        counted.update(str(prediction.label) for prediction in predictions)

    with Batcher(echo, max_waiting_rows=1000, loop_rows=loop_rows, count=count) as batcher:
        asyncio.run(ask())
    assert (counted["9"], counted.total()) == (400, 800)
    assert all(binomtest(counted[row], 400, 1 / 4).pvalue > 0.001 for row in "1234")


@pytest.mark.parametrize(("limit_s", "most"), [(0.0, 0), (60.0, 32)])
def test_rows_for_the_event_loop_stay_within_the_time_limit_and_the_schema(
    echo: Echo, limit_s: float, most: int
) -> None:
    """A model that is never fast enough gets no rows; no size above the schema's 50 rows is tried."""
    assert rows_within(limit_s, echo, rows(1, 2)) <= most
    assert max(echo.calls) <= 32


def test_a_busy_machine_at_the_start_does_not_rule_out_the_event_loop(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first calls were slow: one of eight servers that started together used a thread for every answer."""
    monkeypatch.setattr(module, "PATIENCE_S", 60.0)
    limit_s, late = 0.02, [2 * 0.02] * 8
    quick, asked = echo.predict, echo.calls

    def predict(batch: torch.Tensor) -> torch.Tensor:
        time.sleep(late.pop() if late else 0.0)
        return quick(batch)

    monkeypatch.setattr(echo, "predict", predict)
    assert rows_within(limit_s, echo, rows(1, 2)) > 0
    assert asked.count(1) >= 9


def test_a_busy_model_leaves_the_event_loop_free(echo: Echo) -> None:
    """Other work of the process goes on while the model computes."""

    async def ask() -> bool:
        echo.may_answer.clear()
        asked = asyncio.ensure_future(labels_of(batcher, 1))
        for _ in range(100):
            await asyncio.sleep(0)
        was_free = not asked.done()
        echo.may_answer.set()
        await asked
        return was_free

    with Batcher(echo, max_waiting_rows=1000) as batcher:
        assert asyncio.run(ask())


def test_rows_beyond_the_queue_limit_are_refused_at_once(echo: Echo) -> None:
    """The queue is bounded in rows and has room again when the waiting rows are answered."""

    async def ask() -> list[str]:
        echo.may_answer.clear()
        waiting = asyncio.ensure_future(labels_of(batcher, 1, 2, 3))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batcher.predict(rows(4, 5))
        echo.may_answer.set()
        await waiting
        return await labels_of(batcher, 4, 5)

    with Batcher(echo, max_waiting_rows=4) as batcher:
        assert asyncio.run(ask()) == ["4", "5"]


def test_a_cancelled_request_uses_no_model_time(echo: Echo) -> None:
    """A row whose request was cancelled while it waited is not computed."""

    async def ask() -> None:
        echo.may_answer.clear()
        first = asyncio.ensure_future(labels_of(batcher, 1))
        await asyncio.to_thread(echo.is_called.wait)
        gone = asyncio.ensure_future(labels_of(batcher, 2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        echo.may_answer.set()
        await first

    with Batcher(echo, max_waiting_rows=10) as batcher:
        asyncio.run(ask())
    assert echo.calls == [1]


def test_a_request_whose_client_left_uses_no_model_time(echo: Echo) -> None:
    """Its call ends at once, and its row is not computed."""

    async def ask() -> None:
        echo.may_answer.clear()
        first = asyncio.ensure_future(labels_of(batcher, 1))
        await asyncio.to_thread(echo.is_called.wait)
        with pytest.raises(Abandoned):
            await batcher.predict(rows(2), gone=lambda: asyncio.sleep(0))
        echo.may_answer.set()
        await first

    with Batcher(echo, max_waiting_rows=10) as batcher:
        asyncio.run(ask())
    assert echo.calls == [1]


def test_a_request_is_given_up_at_its_deadline(echo: Echo) -> None:
    """This holds for the request in the model and for the waiting one, which uses no model time."""

    async def ask() -> list[BaseException | list[str]]:
        echo.may_answer.clear()
        first = asyncio.ensure_future(labels_of(batcher, 1))
        await asyncio.to_thread(echo.is_called.wait)
        both = await asyncio.gather(first, labels_of(batcher, 2), return_exceptions=True)
        echo.may_answer.set()
        return both

    with Batcher(echo, max_waiting_rows=10, deadline_s=0.05) as batcher:
        assert [type(answer) for answer in asyncio.run(ask())] == [Overdue, Overdue]
    assert echo.calls == [1]


def test_a_model_that_hangs_is_not_ready_until_it_answers_again(echo: Echo) -> None:
    """It is still ready while a batch is late, and not after several deadlines."""

    async def ask() -> tuple[bool, bool]:
        echo.may_answer.clear()
        stuck = asyncio.ensure_future(labels_of(batcher, 1))
        await asyncio.to_thread(echo.is_called.wait)
        was_alive = batcher.is_alive
        await asyncio.to_thread(eventually, lambda: not batcher.is_alive)
        echo.may_answer.set()
        await asyncio.to_thread(eventually, lambda: batcher.is_alive)
        await asyncio.gather(stuck, return_exceptions=True)
        return was_alive, batcher.is_alive

    with Batcher(echo, max_waiting_rows=10, deadline_s=0.5 / STUCK_DEADLINES) as batcher:
        assert asyncio.run(ask()) == (True, True)


def test_closing_answers_the_waiting_requests(echo: Echo) -> None:
    """Requests that were accepted are answered before the thread ends."""

    async def ask() -> list[str]:
        echo.may_answer.clear()
        asked = asyncio.ensure_future(labels_of(batcher, 1))
        await asyncio.sleep(0)
        closing = asyncio.get_running_loop().run_in_executor(None, batcher.__exit__, None, None, None)
        echo.may_answer.set()
        await closing
        return await asked

    batcher = Batcher(echo, max_waiting_rows=10).__enter__()
    assert asyncio.run(ask()) == ["1"]


@pytest.mark.parametrize(
    ("output", "reason"),
    [(torch.zeros(2, 3), "shape"), (torch.full((2, len(LABELS)), float("nan")), "not finite")],
)
def test_an_answer_that_breaks_the_contract_is_an_error(
    echo: Echo, monkeypatch: pytest.MonkeyPatch, output: torch.Tensor, reason: str
) -> None:
    """A wrong shape or a NaN never reaches a client as a prediction."""
    monkeypatch.setattr(echo, "predict", lambda _batch: output)
    with pytest.raises(BrokenModel, match=reason):
        predict_rows(echo, rows(1, 2))


@pytest.mark.parametrize("connection", [None, "a"])
def test_a_model_that_was_slow_for_a_moment_returns_to_the_event_loop(
    echo: Echo, monkeypatch: pytest.MonkeyPatch, connection: str | None
) -> None:
    """A very busy machine delays several batches in a row; a model that stays slow stays on the thread."""
    callers: list[str] = []
    took_s = 2 * LATE_S

    def predict(batch: torch.Tensor) -> torch.Tensor:
        callers.append(threading.current_thread().name)
        time.sleep(took_s)
        return Echo.predict(echo, batch)

    monkeypatch.setattr(echo, "predict", predict)

    async def ask(times: int) -> list[str]:
        callers.clear()
        for _ in range(times):
            await batcher.predict(rows(1), connection=connection)
        return callers[:]

    with Batcher(echo, max_waiting_rows=100, loop_rows=8) as batcher:
        assert set(asyncio.run(ask(MOST_LATE_IN_A_ROW))) == {"MainThread"}
        assert set(asyncio.run(ask(3))) == {"model"}
        took_s = 0.0
        assert set(asyncio.run(ask(BACK_AFTER - 1))) == {"model"}
        took_s = 2 * LATE_S
        assert set(asyncio.run(ask(2))) == {"model"}
        took_s = 0.0
        assert set(asyncio.run(ask(BACK_AFTER))) == {"model"}
        eventually(lambda: not batcher._thread_is_busy)  # requests that come before that go to the thread too
        assert set(asyncio.run(ask(3))) == {"MainThread"}
