"""A prediction log, model files and feedback of a small two-feature model, written by the service's own code."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from contract.answer_types import Labels, Prediction
from contract.model_files import Feature, Schema
from contract.prediction_log import segment_name, version_folder
from contract.reference_file import write_reference
from service.logs.predictions import PredictionLog

SCHEMA = Schema(
    features=(
        Feature(name="age", minimum=0, maximum=120),
        Feature(name="income", minimum=0, maximum=1e9, logged="never"),
        Feature(name="label", minimum=0, maximum=1),
    ),
    answer=Labels(labels=("no", "yes")),
)


def people(rng: np.random.Generator, rows: int, *, older: float = 0.0) -> NDArray[np.float32]:
    """Rows of age, income, and a feature that has the same name as a field of the answer."""
    age = np.clip(rng.normal(40 + older, 10, rows), 0, 120)
    return np.column_stack([age, np.full(rows, 5.0), rng.random(rows)]).astype(np.float32)


def answers(rows: NDArray[np.float32], *, unsure: float = 0.0) -> list[Prediction]:
    """The model says yes from 40 years on."""
    return [Prediction("yes" if age >= 40 else "no", 0.9 - unsure) for age in rows[:, 0]]


def write_model(folder: Path, rows: NDArray[np.float32]) -> Path:
    """Write a model's files, with `rows` as its reference."""
    folder.mkdir(parents=True, exist_ok=True)
    SCHEMA.write(folder)
    predictions = answers(rows)
    write_reference(folder, rows, predictions, [prediction.label for prediction in predictions])
    return folder


def write_log(
    folder: Path,
    version: str,
    requests: Sequence[NDArray[np.float32]],
    *,
    at_s: Sequence[float] | None = None,
    unsure: float = 0.0,
) -> None:
    """Log requests to a version as the service does; with `at_s`, as if it had answered them at these times."""
    with PredictionLog(
        folder, version, "people:1", SCHEMA, max_bytes=10**9, count_dropped=print, count_failure=print
    ) as log:
        for number, rows in enumerate(requests):
            answer = {"request_id": f"{version}-{number}", "predictions": answers(rows, unsure=unsure)}
            log.record(orjson.dumps({"features": rows.tolist()}), rows, orjson.dumps(answer))
    if at_s is not None:
        (segment,) = (folder / version_folder(version)).glob("*.jsonl")
        lines = zip(segment.read_bytes().splitlines(), at_s, strict=True)
        moved = [orjson.dumps(orjson.loads(line) | {"at_s": float(at)}) for line, at in lines]
        segment.with_name(segment_name(min(at_s), 1)).write_bytes(b"".join(line + b"\n" for line in moved))
        segment.unlink()
