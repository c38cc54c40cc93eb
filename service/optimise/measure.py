"""Measures a model on every engine: how fast it answers, and how often it is right."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from contract.answer_types import Label, Prediction
from contract.model_files import GOLDEN_FILE, SAMPLES_FILE, Golden, Sample, Schema
from contract.records import read_lines
from service.contract import Model
from service.engines import Engine, move
from service.optimise.choice import Failure, Measurement, Trial
from service.optimise.errors import OptimiseError
from service.optimise.export import write_file
from service.server.batching import predict_rows

BATCH_ROWS = (1, 8, 32, 128)
TRIED_ROWS = 2  # rows with which an engine is built; it must then accept any number
ROUNDS = 9
CALLS_S = 0.02  # seconds of calls for each engine and batch size in each round


@dataclass(frozen=True, slots=True)
class Evidence:
    """The rows on which a model is measured, from the files that training wrote."""

    rows: NDArray[np.float32]  # held-out samples, shape (samples, features)
    labels: tuple[Label, ...]  # the true label of each
    golden: tuple[Golden, ...]

    @classmethod
    def read(cls, folder: Path) -> "Evidence":
        """Read the rows from `folder`. Raises OptimiseError if there are no samples."""
        samples = read_lines(folder / SAMPLES_FILE, Sample)
        if not samples:
            raise OptimiseError(
                "accuracy cannot be measured without held-out samples",
                saw=f"no line in {folder / SAMPLES_FILE}",
                do="let training write rows with their true labels",
            )
        schema = Schema.read(folder)
        rows = np.array([schema.numbers(sample.features) for sample in samples], dtype=np.float32)
        return cls(rows, tuple(sample.label for sample in samples), read_lines(folder / GOLDEN_FILE, Golden))


def try_all(
    load: Callable[[], Model], evidence: Evidence, folder: Path, engines: Sequence[Engine]
) -> tuple[Measurement, list[Trial]]:
    """Measure a model on eager and on each of `engines`, and write the engines' files into `folder`.

    Args:
        load: returns a new copy of the model at each call.

    Raises: OptimiseError if the model has no network that an engine could run; what the model raises on eager.
    """
    eager = load()
    network = getattr(eager, "network", None)
    if not isinstance(network, nn.Module):
        raise OptimiseError(
            f"{type(eager).__name__} has no network to optimise",
            saw=f"`network` is {type(network).__name__}",
            do="call the torch module in `predict` as `self.network(batch)`; see Model.network",
        )
    models, failures = {Engine.EAGER: eager}, {}
    right = {Engine.EAGER: _right(eager, evidence)}
    for engine in engines:
        model = load()
        try:
            if engine.file is not None:
                write_file(engine, network, eager.preprocess(evidence.rows[:TRIED_ROWS]), folder / engine.file)
            move(model, engine, folder, evidence.rows[:TRIED_ROWS])
            right[engine] = _right(model, evidence)
            models[engine] = model
        except Exception as error:  # noqa: BLE001 - an exporter or an engine may fail on a network in any way
            failures[engine] = Failure(engine, _first_line(error))
    ms = _interleaved_ms(models, evidence.rows)
    measured = {engine: Measurement(engine, ms[engine], *right[engine]) for engine in models}
    return measured[Engine.EAGER], [measured.get(engine) or failures[engine] for engine in engines]


def answers(model: Model, rows: NDArray[np.float32]) -> list[Prediction]:
    """One answer per row, in batches that the model's schema allows."""
    size = model.schema.max_rows
    with torch.inference_mode():
        return [
            prediction
            for start in range(0, len(rows), size)
            for prediction in predict_rows(model, rows[start : start + size])
        ]


def golden_answers(model: Model, golden: Golden) -> list[Prediction]:
    """The answers to a golden request."""
    return answers(model, np.array([model.schema.numbers(row) for row in golden.features], np.float32))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _right(model: Model, evidence: Evidence) -> tuple[float, int]:
    """Accuracy on the samples, and the number of golden requests that do not get the expected answer."""
    given = answers(model, evidence.rows)
    is_same = model.schema.answer.is_same
    right = sum(is_same(prediction.label, label) for prediction, label in zip(given, evidence.labels, strict=True))
    changed = sum(
        not all(
            is_same(prediction.label, known.label)
            for prediction, known in zip(golden_answers(model, golden), golden.predictions, strict=True)
        )
        for golden in evidence.golden
    )
    return right / len(given), changed


def _interleaved_ms(models: Mapping[Engine, Model], rows: NDArray[np.float32]) -> dict[Engine, dict[int, float]]:
    """Milliseconds of one call, by engine and batch size: the least of several rounds, least delayed by other work.

    The engines take turns, so that a slow moment of the machine slows all of them.
    """
    most = next(iter(models.values())).schema.max_rows
    sizes = [size for size in BATCH_ROWS if size <= most]
    found = {engine: dict.fromkeys(sizes, float("inf")) for engine in models}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for size in sizes:
                batch = np.resize(rows, (size, rows.shape[1]))
                for engine, model in models.items():
                    found[engine][size] = min(found[engine][size], _call_ms(model, batch))
    return found


def _call_ms(model: Model, batch: NDArray[np.float32]) -> float:
    """The time of the fastest of the calls within `CALLS_S`; at least two, because the first warms the caches."""
    least_s, calls = float("inf"), 0
    end_s = time.perf_counter() + CALLS_S
    while calls < 2 or time.perf_counter() < end_s:
        began_s = time.perf_counter()
        predict_rows(model, batch)
        least_s, calls = min(least_s, time.perf_counter() - began_s), calls + 1
    return 1e3 * least_s
