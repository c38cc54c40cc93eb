"""The model contract: all that a user writes to have a model served, released and watched.

A model is a class that derives from `Model`, plus a folder of data files that training wrote:

    weights.safetensors   the weights (or any file that the class reads without unpickling)
    schema.json           what a request may hold and which labels an answer may carry: `Schema`
    golden.jsonl          requests with their expected answers, replayed before any traffic: `Golden`
    samples.jsonl         held-out rows with their true labels, for load tests and drift: `Sample`

The files are plain JSON, so that other tools read them without importing the model's code. Knows
neither HTTP nor BentoML.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_FILE = "schema.json"
GOLDEN_FILE = "golden.jsonl"
SAMPLES_FILE = "samples.jsonl"


class Record(BaseModel):
    """Base of what is read from and written to a model's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Feature(Record):
    """One input column. A value outside [minimum, maximum] is refused, never clipped."""

    name: str
    minimum: float
    maximum: float
    logged: Literal["plain", "hashed", "never"] = "plain"  # in the prediction log; a private column is not `plain`

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"feature {self.name!r}: minimum {self.minimum} is above maximum {self.maximum}")
        return self


class Schema(Record):
    """What a request may hold and which labels an answer may carry."""

    features: tuple[Feature, ...] = Field(min_length=1)  # in column order
    labels: tuple[str, ...] = Field(min_length=1)  # in the order of the columns of `Model.predict`
    max_rows: int = Field(default=1024, ge=1)  # most rows in one request

    @classmethod
    def read(cls, folder: Path) -> Self:
        return cls.model_validate_json((folder / SCHEMA_FILE).read_bytes())

    def write(self, folder: Path) -> None:
        (folder / SCHEMA_FILE).write_text(self.model_dump_json(indent=1) + "\n")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one row."""

    label: str
    confidence: float  # the model's own probability of `label`, 0-1


class Golden(Record):
    """A request and the answer that every correct build of this model gives to it."""

    features: tuple[tuple[float, ...], ...]  # rows, as in the body of a request
    predictions: tuple[Prediction, ...]  # one per row


class Sample(Record):
    """A held-out row and its true label."""

    features: tuple[float, ...]
    label: str


class Model(ABC):
    """One loaded model. Calls come from one thread at a time, without gradients."""

    def __init__(self, folder: Path) -> None:
        """Load from `folder`. Derived classes read their weights here; they never unpickle."""
        self.schema = Schema.read(folder)

    def preprocess(self, rows: NDArray[np.float32]) -> torch.Tensor:
        """Turn checked rows, shape (rows, features), into the batch that `predict` takes, first dimension rows."""
        return torch.from_numpy(rows)

    @abstractmethod
    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the probability of every label, shape (rows, labels)."""

    def postprocess(self, probabilities: torch.Tensor) -> list[Prediction]:
        """Return one answer per row, in order. By default the most probable label."""
        confidences, columns = probabilities.max(dim=1)
        labels = self.schema.labels
        return [
            Prediction(labels[column], confidence)
            for column, confidence in zip(columns.tolist(), confidences.tolist(), strict=True)
        ]


RecordT = TypeVar("RecordT", bound=Record)


def read_lines(path: Path, record: type[RecordT]) -> tuple[RecordT, ...]:
    """Read a file of JSON lines. Raises pydantic.ValidationError when a line is not a `record`."""
    with path.open("rb") as lines:
        return tuple(record.model_validate_json(line) for line in lines)


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Write `records` as JSON lines."""
    path.write_text("".join(record.model_dump_json() + "\n" for record in records))
