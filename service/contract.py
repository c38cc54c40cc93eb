"""The model contract: all that a user writes to have a model served, released and watched.

A model is a class that derives from `Model`, plus a folder of data files that training wrote: the weights
(weights.safetensors, or any file that the class reads without unpickling) and the four files of
`contract.model_files`. All that a model's class and its training need can be imported from here.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

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
    "read_lines",
    "write_lines",
    "write_reference",
]


class Model(ABC):
    """One loaded model. Calls come from one thread at a time, without gradients.

    A class that calls its torch module in `predict` as `self.network(batch)` can be optimised: a faster
    engine then takes the module's place, with the same batches in and the same tensors out.
    """

    network: Callable[[torch.Tensor], torch.Tensor]  # optional

    def __init__(self, folder: Path) -> None:
        """Load from `folder`. Derived classes read their weights here; they never unpickle."""
        self.schema = Schema.read(folder)

    def preprocess(self, rows: NDArray[np.float32]) -> torch.Tensor:
        """Turn checked rows, shape (rows, features), into the batch that `predict` takes, first dimension rows."""
        return torch.from_numpy(rows)

    @abstractmethod
    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the probability of every label, shape (rows, labels), or one number per row, shape (rows, 1)."""

    def postprocess(self, outputs: torch.Tensor) -> list[Prediction]:
        """Return one answer per row, in order. By default the most probable label, or the number."""
        return _predictions(self.schema.answer, outputs)


def _predictions(answer: AnswerKind, outputs: torch.Tensor) -> list[Prediction]:
    if isinstance(answer, Number):
        return [Prediction(number) for number in outputs[:, 0].tolist()]
    confidences, columns = outputs.max(dim=1)
    return [
        Prediction(answer.labels[column], confidence)
        for column, confidence in zip(columns.tolist(), confidences.tolist(), strict=True)
    ]
