"""Runs the model on the waiting rows whenever it is free: on the event loop if that is quick, otherwise on a thread.

Requests that arrive together, or while the model is busy, share its next call. A single request never waits for
others; if it follows another one on the same connection, it does not even wait for a turn of the event loop. A batch
that takes about as long as a switch to a thread and back is answered on the event loop. Larger batches and slow models
go to a thread, so that health checks are answered however slow the model is.
"""

import asyncio
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from contract.answer_types import Prediction
from service.contract import Model

LOOP_S = 0.002  # longest that one batch may hold the event loop
# A model must be slow for so long to count as slow. Otherwise a start on a busy machine would put it on the thread.
PATIENCE_S = 0.3
# A busy machine makes a batch late now and then. A model that has become slow makes many in a row late. A machine that
# was very busy for a moment also does; the model then returns to the event loop.
LATE_S = 10 * LOOP_S
MOST_LATE_IN_A_ROW = 5
BACK_AFTER = 100  # batches in a row on the thread that were not late
DEFAULT_DEADLINE_S = 9.0  # a gateway that waits 10 s still gets the reason
STUCK_DEADLINES = 3  # a model that finished no batch for this many deadlines is not ready

log = structlog.get_logger()


class Overloaded(Exception):
    """More rows wait than the model can answer in a reasonable time."""

    def __init__(self) -> None:
        super().__init__("too many rows wait for the model")


class Overdue(Exception):
    """The model did not answer these rows in time."""

    def __init__(self, deadline_s: float) -> None:
        super().__init__(f"the model did not answer within {deadline_s:g} s")


class Abandoned(Exception):
    """The client no longer waits for the answer."""


class BrokenModel(Exception):
    """The model's answer breaks the contract: its shape is wrong, or it is not a number."""


@dataclass(frozen=True, slots=True)
class _Job:
    rows: NDArray[np.float32]
    answer: asyncio.Future[list[Prediction]]
    loop: asyncio.AbstractEventLoop
    gone: Callable[[], Coroutine[None, None, None]] | None
    is_counted: bool


_Outcome = tuple[_Job, list[Prediction] | Exception]


class Batcher:
    """Makes all calls to the model of one worker.

    Args:
        model: a loaded model.
        max_waiting_rows: refuse requests beyond this many rows in the queue.
        loop_rows: answer up to this many rows together on the event loop; see `rows_within`.
        deadline_s: rows that wait longer for the thread are given up and take no model time.
        count: called after each call of the model, on the same thread, with the answer to one row of each request,
            drawn at random. Rows of one request are often alike, so they are not independent events.
    """

    def __init__(
        self,
        model: Model,
        *,
        max_waiting_rows: int,
        loop_rows: int = 0,
        deadline_s: float = DEFAULT_DEADLINE_S,
        count: Callable[[list[Prediction]], None] = lambda _: None,
    ) -> None:
        self._model = model
        self._count = count
        self._deadline_s = deadline_s
        self._max_waiting_rows = max_waiting_rows
        self._loop_rows = loop_rows
        self._late_in_a_row = 0  # batches on the event loop
        self._quick_in_a_row = 0  # batches on the thread, of a size for the event loop
        self._is_slow = False  # everything goes to the thread
        self._waiting_rows = 0  # changed on the event loop only
        self._arrived: deque[_Job] = deque()  # changed on the event loop only
        self._connection: object | None = None  # of the last request; changed on the event loop only
        self._handed_over = 0  # jobs given to the thread; changed on the event loop only
        self._finished = 0  # how many of these are finished; changed on the thread only
        self._progress_s = 0.0  # when the thread last finished a batch, or was given one while it was idle
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.put(None)
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the model still answers. True even while the queue is full."""
        is_stuck = self._thread_is_busy and time.monotonic() - self._progress_s > STUCK_DEADLINES * self._deadline_s
        return self._thread.is_alive() and not is_stuck

    async def predict(
        self,
        rows: NDArray[np.float32],
        *,
        connection: object | None = None,
        gone: Callable[[], Coroutine[None, None, None]] | None = None,
        is_counted: bool = True,
    ) -> list[Prediction]:
        """Return one answer per row.

        Args:
            rows: checked rows, shape (rows, features).
            connection: the request's connection, which has one request at a time; None: unknown.
            gone: returns when the client no longer waits for the answer.
            is_counted: whether the answer is passed to `count`.

        Raises: Overloaded, Overdue, Abandoned, BrokenModel, or what the model raised.
        """
        if self._waiting_rows + len(rows) > self._max_waiting_rows:
            raise Overloaded
        is_next, self._connection = connection is not None and connection == self._connection, connection
        if is_next and not (self._arrived or self._needs_thread(rows)):
            return self._answer_alone(rows, is_counted=is_counted)
        loop = asyncio.get_running_loop()
        job = _Job(rows, loop.create_future(), loop, gone, is_counted)
        self._waiting_rows += len(rows)
        try:
            if self._needs_thread(rows):
                self._hand_over(job)
            else:
                self._arrived.append(job)
                if len(self._arrived) == 1:  # others that arrive in this turn of the loop join the batch
                    loop.call_soon(self._answer_arrived)
            return await job.answer
        finally:
            self._waiting_rows -= len(rows)

    @property
    def _thread_is_busy(self) -> bool:
        return self._handed_over != self._finished

    def _needs_thread(self, rows: NDArray[np.float32]) -> bool:
        return len(rows) > self._loop_rows or self._is_slow or self._thread_is_busy

    def _answer_alone(self, rows: NDArray[np.float32], *, is_counted: bool) -> list[Prediction]:
        """Answer one request at once. Raises what `predict_rows` and `count` raise."""
        started_s = time.perf_counter()
        try:
            with torch.inference_mode():
                predictions = predict_rows(self._model, rows)
            if is_counted:
                self._count([predictions[random.randrange(len(rows))]] if len(rows) > 1 else predictions)  # noqa: S311 - not a secret
            return predictions
        finally:
            self._watch_loop(time.perf_counter() - started_s)

    def _hand_over(self, job: _Job) -> None:
        """Give a job to the thread. Only there can a wait be longer than a deadline or than the client waits."""
        if not self._thread_is_busy:
            self._progress_s = time.monotonic()
        self._handed_over += 1
        overdue = job.loop.call_later(self._deadline_s, _give_up, job, Overdue(self._deadline_s))
        job.answer.add_done_callback(lambda _: overdue.cancel())
        if job.gone:
            watch = job.loop.create_task(job.gone())
            watch.add_done_callback(lambda _: _give_up(job, Abandoned()))
            job.answer.add_done_callback(lambda _: watch.cancel())
        self._jobs.put(job)

    def _answer_arrived(self) -> None:
        """Answer as many of the arrived jobs as fit into one short call, on the event loop."""
        if self._thread_is_busy or self._is_slow:  # a large job arrived in the same turn, and calls must not overlap
            while self._arrived:
                self._hand_over(self._arrived.popleft())
            return
        batch: list[_Job] = []
        rows = 0
        while self._arrived and rows + len(self._arrived[0].rows) <= self._loop_rows:
            rows += len(self._arrived[0].rows)
            batch.append(self._arrived.popleft())
        if self._arrived:
            self._arrived[0].loop.call_soon(self._answer_arrived)
        started_s = time.perf_counter()
        with torch.inference_mode():
            _settle(self._outcomes(batch))
        self._watch_loop(time.perf_counter() - started_s)

    def _watch_loop(self, took_s: float) -> None:
        self._late_in_a_row = self._late_in_a_row + 1 if took_s > LATE_S else 0
        if self._late_in_a_row == MOST_LATE_IN_A_ROW:
            self._late_in_a_row = self._quick_in_a_row = 0
            self._is_slow = True
            log.warning("model_moved_to_thread", took_s=took_s, limit_s=LATE_S)

    def _watch_thread(self, batch: list[_Job], took_s: float) -> None:
        if self._is_slow and sum(len(job.rows) for job in batch) <= self._loop_rows:
            self._quick_in_a_row = self._quick_in_a_row + 1 if took_s <= LATE_S else 0
            if self._quick_in_a_row == BACK_AFTER:
                self._is_slow = False
                log.info("model_moved_to_event_loop", took_s=took_s, limit_s=LATE_S)

    def _run(self) -> None:
        with torch.inference_mode():
            while (job := self._jobs.get()) is not None:
                batch, is_last = self._with_waiting(job)
                started_s = time.perf_counter()
                if outcomes := self._outcomes(batch):
                    self._watch_thread(batch, time.perf_counter() - started_s)
                    with suppress(RuntimeError):  # the loop was closed: no client is left
                        outcomes[0][0].loop.call_soon_threadsafe(_settle, outcomes)
                self._finished += len(batch)
                self._progress_s = time.monotonic()
                if is_last:
                    return

    def _with_waiting(self, first: _Job) -> tuple[list[_Job], bool]:
        batch, rows = [first], len(first.rows)
        while rows < self._model.schema.max_rows:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
            if job is None:
                return batch, True
            batch.append(job)
            rows += len(job.rows)
        return batch, False

    def _outcomes(self, batch: list[_Job]) -> list[_Outcome]:
        wanted = [job for job in batch if not job.answer.done()]  # the others were given up
        if not wanted:
            return []
        try:
            predictions = predict_rows(self._model, np.concatenate([job.rows for job in wanted]))
            self._count(_one_of_each(wanted, predictions))
        except Exception as error:  # noqa: BLE001 - an error of the model fails its request, not this thread
            if len(wanted) == 1:
                return [(wanted[0], error)]
            # one bad request must not fail the others in its batch
            return [outcome for job in wanted for outcome in self._outcomes([job])]
        outcomes: list[_Outcome] = []
        start = 0
        for job in wanted:
            outcomes.append((job, predictions[start : start + len(job.rows)]))
            start += len(job.rows)
        return outcomes


def _one_of_each(jobs: Sequence[_Job], predictions: list[Prediction]) -> list[Prediction]:
    """The answer to one row of each job that counts, drawn at random.

    Args:
        predictions: the answers to the rows of all jobs, in their order.
    """
    if len(jobs) == len(predictions) and all(job.is_counted for job in jobs):
        return predictions
    drawn: list[Prediction] = []
    start = 0
    for job in jobs:
        if job.is_counted:
            drawn.append(predictions[start + random.randrange(len(job.rows))])  # noqa: S311 - not a secret
        start += len(job.rows)
    return drawn


def predict_rows(model: Model, rows: NDArray[np.float32]) -> list[Prediction]:
    """Run checked rows through the whole model and check its answers against the contract. Raises BrokenModel."""
    outputs = model.predict(model.preprocess(rows))
    expected = (len(rows), model.schema.answer.columns)
    if tuple(outputs.shape) != expected:
        raise BrokenModel(f"predict returned shape {tuple(outputs.shape)}, expected {expected}")
    # The sum costs a fifth of a check of each value. A finite sum proves that all values are finite; another sum proves
    # nothing, because the sum of finite values can be infinite.
    if not math.isfinite(outputs.sum().item()) and not torch.isfinite(outputs).all():
        raise BrokenModel("predict returned a value that is not finite")
    predictions = model.postprocess(outputs)
    if len(predictions) != len(rows):
        raise BrokenModel(f"postprocess returned {len(predictions)} answers for {len(rows)} rows")
    return predictions


def rows_within(limit_s: float, model: Model, rows: NDArray[np.float32]) -> int:
    """Find the batch size with the least time per row, among those that take at most `limit_s`.

    Args:
        limit_s: longest time of one batch, seconds.
        model: a loaded model that has been called before.
        rows: some rows that it accepts, shape (at least 1, features).

    Returns: a power of two; 0 if even one row takes longer.
    """
    found, size, least_s = 0, 1, float("inf")
    with torch.inference_mode():
        while size <= model.schema.max_rows:
            batch = np.resize(rows, (size, rows.shape[1]))
            took_s = _least_s(model, batch, limit_s, patience_s=0.0 if found else PATIENCE_S)
            if took_s > limit_s:
                break
            if took_s / size < least_s:
                found, least_s = size, took_s / size
            size *= 2
    return found


def _least_s(model: Model, batch: NDArray[np.float32], limit_s: float, *, patience_s: float) -> float:
    """The shortest of five calls; of more, for up to `patience_s`, while all took longer than `limit_s`."""
    give_up_at_s = time.perf_counter() + patience_s
    least_s = min(_seconds(model, batch) for _ in range(5))
    while least_s > limit_s and time.perf_counter() < give_up_at_s:
        least_s = min(least_s, _seconds(model, batch))
    return least_s


def _seconds(model: Model, rows: NDArray[np.float32]) -> float:
    started_s = time.perf_counter()
    predict_rows(model, rows)
    return time.perf_counter() - started_s


def _give_up(job: _Job, reason: Exception) -> None:
    if not job.answer.done():
        job.answer.set_exception(reason)


def _settle(outcomes: list[_Outcome]) -> None:
    for job, outcome in outcomes:
        if job.answer.done():
            continue
        if isinstance(outcome, Exception):
            job.answer.set_exception(outcome)
        else:
            job.answer.set_result(outcome)
