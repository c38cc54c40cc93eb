"""The model contract: what a user writes so that a model can be served, released and watched.

A model is a class that derives from `Model`, plus a folder of data files that training wrote: the weights
(weights.safetensors, or any file that the class reads without unpickling) and the four files of
`contract.model_files`. Everything that a model's class and its training need can be imported from this module.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from contract.answer_types import AnswerKind, Label, Labels, Number, Prediction
from contract.model_files import (
    GOLDEN_FILE,
    REFERENCE_FILE,
    SAMPLES_FILE,
    SCHEMA_FILE,
    Feature,
    Golden,
    Reference,
    Sample,
    Schema,
    Value,
)
from contract.records import Record, read_lines, write_lines
from contract.reference_file import write_reference

__all__ = [
    "GOLDEN_FILE",
    "REFERENCE_FILE",
    "SAMPLES_FILE",
    "SCHEMA_FILE",
    "Feature",
    "Golden",
    "Label",
    "Labels",
    "Model",
    "Number",
    "Prediction",
    "Record",
    "Reference",
    "Sample",
    "Schema",
    "Value",
    "read_lines",
    "save_model",
    "write_lines",
    "write_reference",
]


GOLDEN_REQUESTS = 20


class Model(ABC):
    """One loaded model. It is called by one thread at a time, without gradients.

    A class that calls its torch module in `predict` as `self.network(batch)` can be optimised: a faster
    engine then replaces the module, and takes the same batches and returns the same tensors.
    """

    network: Callable[[torch.Tensor], torch.Tensor]  # optional

    def __init__(self, folder: Path) -> None:
        """Load from `folder`. Derived classes read their weights here; they never unpickle."""
        self.schema = Schema.read(folder)

    def preprocess(self, rows: NDArray[np.float32]) -> torch.Tensor:
        """Turn checked rows, shape (rows, features), into the batch that `predict` takes, first dimension rows.

        A category is its index in the feature's `categories`; a missing value is NaN.
        """
        return torch.from_numpy(rows)

    @abstractmethod
    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the probability of every label, shape (rows, labels), or one number per row, shape (rows, 1)."""

    def postprocess(self, outputs: torch.Tensor) -> list[Prediction]:
        """Return one answer per row, in order. The default is the most probable label, or the number."""
        return _predictions(self.schema.answer, outputs)


def _predictions(answer: AnswerKind, outputs: torch.Tensor) -> list[Prediction]:
    if isinstance(answer, Number):
        return [Prediction(number) for number in outputs[:, 0].tolist()]
    if len(outputs) == 1:  # most requests have one row, for which torch calls cost more than plain Python
        row = outputs[0].tolist()
        confidence = max(row)
        return [Prediction(answer.labels[row.index(confidence)], confidence)]
    confidences, columns = outputs.max(dim=1)
    return [
        Prediction(answer.labels[column], confidence)
        for column, confidence in zip(columns.tolist(), confidences.tolist(), strict=True)
    ]


def save_model(folder: Path, model: Model, held_out: NDArray[np.float32], truth: Sequence[Label]) -> float:
    """Write the files that releases need beside the weights: golden requests, samples and the reference.

    Call it after the weights and `schema.json` are in `folder` and `model` was loaded from there.

    Args:
        held_out: rows that training never saw, as the model gets them (`Schema.numbers`), shape (rows, features).
        truth: the correct answer to each row: a label of the schema, or a number. A label may be given as a number.

    Returns: the share of rows that the model answers correctly, 0-1.

    Raises: ValueError if the two differ in length, there are no rows, or the schema lacks a label.
    """
    if not len(held_out) == len(truth) > 0:
        raise ValueError(
            f"{len(held_out)} held-out rows and {len(truth)} truths; give at least one row, and one truth for each row"
        )
    answer = model.schema.answer
    truths: list[Label] = [str(one) if isinstance(answer, Labels) else float(one) for one in truth]
    if isinstance(answer, Labels) and (unknown := sorted({str(one) for one in truths} - {*answer.labels})):
        raise ValueError(f"{SCHEMA_FILE} has no label {unknown[0]!r}; it has {', '.join(map(repr, answer.labels))}")
    predictions: list[Prediction] = []
    with torch.inference_mode():
        for start in range(0, len(held_out), model.schema.max_rows):
            batch = model.preprocess(held_out[start : start + model.schema.max_rows])
            predictions += model.postprocess(model.predict(batch))
    write_reference(folder, held_out, predictions, truths)
    rows = [tuple(model.schema.values(row)) for row in held_out.tolist()]
    tolerance = 0.0 if isinstance(answer, Labels) else answer.tolerance
    samples = zip(rows, truths, strict=True)
    write_lines(
        folder / SAMPLES_FILE, (Sample(features=row, label=label, tolerance=tolerance) for row, label in samples)
    )
    is_right = [answer.is_same(one.label, label) for one, label in zip(predictions, truths, strict=True)]
    # Another engine may answer less certain rows differently.
    sure = median(one.confidence or 0.0 for one in predictions)
    order = sorted(range(len(rows)), key=lambda at: (not is_right[at], (predictions[at].confidence or 0.0) < sure))
    golden = order[:GOLDEN_REQUESTS]
    write_lines(
        folder / GOLDEN_FILE,
        (Golden(features=(rows[number],), predictions=(predictions[number],)) for number in golden),
    )
    return sum(is_right) / len(is_right)
