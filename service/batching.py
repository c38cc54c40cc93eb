"""Run the model on one thread, on whatever rows wait when it is free.

Several requests that arrive while the model is busy share its next call; a lone request never waits
for company. The event loop stays free, so health checks answer however slow the model is. Called by
the HTTP layer; knows no HTTP.
"""

import asyncio
import threading
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from service.contract import Model, Prediction


class Overloaded(Exception):
    """More rows wait than the model can answer in reasonable time."""


class BrokenModel(Exception):
    """The model's answer breaks the contract: wrong shape, or not a number."""


@dataclass(frozen=True, slots=True)
class _Job:
    rows: NDArray[np.float32]
    answer: asyncio.Future[list[Prediction]]
    loop: asyncio.AbstractEventLoop


class Batcher:
    """The only caller of the model once it serves.

    Args:
        model: a loaded model.
        max_waiting_rows: refuse requests beyond this many rows in the queue.
    """

    def __init__(self, model: Model, *, max_waiting_rows: int) -> None:
        self._model = model
        self._max_waiting_rows = max_waiting_rows
        self._waiting_rows = 0  # changed on the event loop only
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
        return self._thread.is_alive()

    async def predict(self, rows: NDArray[np.float32]) -> list[Prediction]:
        """Return one answer per row. Raises Overloaded, BrokenModel, or what the model raised."""
        if self._waiting_rows + len(rows) > self._max_waiting_rows:
            raise Overloaded
        loop = asyncio.get_running_loop()
        job = _Job(rows, loop.create_future(), loop)
        self._waiting_rows += len(rows)
        try:
            self._jobs.put(job)
            return await job.answer
        finally:
            self._waiting_rows -= len(rows)

    def _run(self) -> None:
        with torch.inference_mode():
            while (job := self._jobs.get()) is not None:
                batch, is_last = self._with_waiting(job)
                self._answer(batch)
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

    def _answer(self, batch: list[_Job]) -> None:
        wanted = [job for job in batch if not job.answer.cancelled()]
        if not wanted:
            return
        try:
            predictions = predict_rows(self._model, np.concatenate([job.rows for job in wanted]))
        except Exception as error:  # noqa: BLE001 - whatever a model raises belongs to its request, not to this thread
            if len(wanted) == 1:
                wanted[0].loop.call_soon_threadsafe(_fail, wanted[0], error)
                return
            for job in wanted:  # one request's bad luck must not fail its neighbours
                self._answer([job])
            return
        wanted[0].loop.call_soon_threadsafe(_deliver, wanted, predictions)


def predict_rows(model: Model, rows: NDArray[np.float32]) -> list[Prediction]:
    """Take checked rows through the whole model, and its answer through the contract. Raises BrokenModel."""
    probabilities = model.predict(model.preprocess(rows))
    expected = (len(rows), len(model.schema.labels))
    if tuple(probabilities.shape) != expected:
        raise BrokenModel(f"predict returned shape {tuple(probabilities.shape)}, expected {expected}")
    if not torch.isfinite(probabilities).all():
        raise BrokenModel("predict returned a value that is not finite")
    predictions = model.postprocess(probabilities)
    if len(predictions) != len(rows):
        raise BrokenModel(f"postprocess returned {len(predictions)} answers for {len(rows)} rows")
    return predictions


def _deliver(jobs: list[_Job], predictions: list[Prediction]) -> None:
    start = 0
    for job in jobs:
        end = start + len(job.rows)
        if not job.answer.done():
            job.answer.set_result(predictions[start:end])
        start = end


def _fail(job: _Job, error: Exception) -> None:
    if not job.answer.done():
        job.answer.set_exception(error)
