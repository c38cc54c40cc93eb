"""The files that training writes beside a model's weights: plain JSON, which can be read without the model's code.

schema.json       what a request may hold, and whether an answer is a label or a number: `Schema`
golden.jsonl      requests with their expected answers, replayed before any traffic: `Golden`
samples.jsonl     held-out rows with the truth about them, for load tests: `Sample`
reference.jsonl   held-out rows with this model's own answers, which drift is measured against: `Reference`
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from contract.answer_types import AnswerKind, Label, Prediction
from contract.records import Record, Unknown

SCHEMA_FILE = "schema.json"
GOLDEN_FILE = "golden.jsonl"
SAMPLES_FILE = "samples.jsonl"
REFERENCE_FILE = "reference.jsonl"

Logged = Literal["plain", "hashed", "never"]  # in the prediction log; a private column is not `plain`


class Feature(Record):
    """One input column. A value outside [minimum, maximum] is refused, never clipped."""

    name: str
    minimum: float
    maximum: float
    logged: Logged = "plain"

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
            raise ValueError(f"two features have the same name: {', '.join(twice)}")
        return features

    def logged_as(self, how: Logged) -> list[int]:
        """Indices of the features that are logged as `how`, in column order."""
        return [place for place, feature in enumerate(self.features) if feature.logged == how]

    @classmethod
    def read(cls, folder: Path, *, unknown: Unknown = "forbid") -> Self:
        """Raises OSError; pydantic.ValidationError when the file is not a schema."""
        return cls.model_validate_json((folder / SCHEMA_FILE).read_bytes(), extra=unknown)

    def write(self, folder: Path) -> None:
        (folder / SCHEMA_FILE).write_text(self.model_dump_json(indent=1) + "\n")


class Golden(Record):
    """A request and the answers that every correct build of this model gives to it."""

    features: tuple[tuple[float, ...], ...]  # rows, as in the body of a request
    predictions: tuple[Prediction, ...]  # one per row


class Sample(Record):
    """A held-out row and the truth about it."""

    features: tuple[float, ...] = Field(min_length=1)
    label: Label
    tolerance: float = Field(default=0, ge=0)  # a number at most this far from `label` is right


class Reference(Record):
    """A row that training never saw, this model's answer to it, and the truth. `reference_file` writes them."""

    features: tuple[float, ...]  # only those that the schema logs `plain`, in column order
    prediction: Prediction
    truth: Label
