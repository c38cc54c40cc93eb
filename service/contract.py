"""The model contract: all that a user writes to have a model served, released and watched.

A model is a class that derives from `Model`, plus a folder of data files that training wrote:

    weights.safetensors   the weights (or any file that the class reads without unpickling)
    schema.json           what a request may hold, and whether an answer is a label or a number: `Schema`
    golden.jsonl          requests with their expected answers, replayed before any traffic: `Golden`
    samples.jsonl         held-out rows with the truth about them, for load tests: `Sample`
    reference.jsonl       held-out rows with this model's own answers, which drift is measured against: `Reference`

The files are plain JSON, so that other tools read them without importing the model's code. Knows
neither HTTP nor BentoML.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from service.kinds import AnswerKind, Label, Prediction, Record

SCHEMA_FILE = "schema.json"
GOLDEN_FILE = "golden.jsonl"
SAMPLES_FILE = "samples.jsonl"
REFERENCE_FILE = "reference.jsonl"


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
    """What a request may hold and what kind of answer it gets."""

    features: tuple[Feature, ...] = Field(min_length=1)  # in column order
    answer: AnswerKind
    max_rows: int = Field(default=1024, ge=1)  # most rows in one request

    @field_validator("features")
    @classmethod
    def _names_differ(cls, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        names = [feature.name for feature in features]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two features have one name: {', '.join(twice)}")
        return features

    @classmethod
    def read(cls, folder: Path) -> Self:
        return cls.model_validate_json((folder / SCHEMA_FILE).read_bytes())

    def write(self, folder: Path) -> None:
        (folder / SCHEMA_FILE).write_text(self.model_dump_json(indent=1) + "\n")


class Golden(Record):
    """A request and the answer that every correct build of this model gives to it."""

    features: tuple[tuple[float, ...], ...]  # rows, as in the body of a request
    predictions: tuple[Prediction, ...]  # one per row


class Sample(Record):
    """A held-out row and the truth about it."""

    features: tuple[float, ...]
    label: Label
    tolerance: float = Field(default=0, ge=0)  # an answer that is a number may be so far off and still be right


class Reference(Record):
    """A row that training never saw, this model's answer to it, and the truth. Written by service/reference.py."""

    features: tuple[float, ...]  # of the schema's features those that are logged `plain`, in column order
    prediction: Prediction
    truth: Label


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
        return self.schema.answer.predictions(outputs)


RecordT = TypeVar("RecordT", bound=Record)


def read_lines(path: Path, record: type[RecordT]) -> tuple[RecordT, ...]:
    """Read a file of JSON lines. Raises pydantic.ValidationError when a line is not a `record`."""
    with path.open("rb") as lines:
        return tuple(record.model_validate_json(line) for line in lines)


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Write `records` as JSON lines."""
    path.write_text("".join(record.model_dump_json() + "\n" for record in records))
