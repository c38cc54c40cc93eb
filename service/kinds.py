"""The two kinds of answers that a model may give to a row: one of some names, or a number.

Each kind says how a network's output becomes answers, which of a few classes an answer counts as, and when two
answers are the same. The contract names the kind; whatever counts or compares answers asks it. Knows no HTTP.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

Label = str | float  # what an answer says, and what the truth turns out to be


class Record(BaseModel):
    """Base of what is read from and written to a model's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one row."""

    label: Label
    confidence: float | None = None  # the model's own probability of `label`, 0-1; None: it does not know


class Labels(Record):
    """The answer is one of some names; `Model.predict` gives the probability of each."""

    kind: Literal["label"] = "label"
    labels: tuple[str, ...] = Field(min_length=1)  # in the order of the columns of `Model.predict`

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError("two labels have one name")
        return labels

    @property
    def columns(self) -> int:
        """Of what `Model.predict` returns."""
        return len(self.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """All that answers are counted as."""
        return self.labels

    def class_of(self, label: Label) -> str:
        return str(label)

    def is_same(self, one: object, other: object) -> bool:
        return one == other

    def predictions(self, outputs: torch.Tensor) -> list[Prediction]:
        """The most probable label of each row."""
        confidences, columns = outputs.max(dim=1)
        return [
            Prediction(self.labels[column], confidence)
            for column, confidence in zip(columns.tolist(), confidences.tolist(), strict=True)
        ]


class Number(Record):
    """The answer is a number: the one column of `Model.predict`."""

    kind: Literal["number"] = "number"
    tolerance: float = Field(ge=0)  # answers at most this far apart are the same; so far off, an answer is right
    edges: tuple[float, ...] = Field(min_length=1)  # rising; answers are counted between these, see `binned`

    @classmethod
    def binned(cls, answers: ArrayLike, *, tolerance: float, bins: int = 10) -> Self:
        """Lay the edges so that each bin holds about as many of `answers`, a model's own to rows that are typical."""
        inner = np.quantile(np.asarray(answers, dtype=float), np.linspace(0, 1, bins + 1)[1:-1])
        return cls(tolerance=tolerance, edges=tuple(sorted({float(f"{edge:.4g}") for edge in inner})))

    @field_validator("edges")
    @classmethod
    def _edges_rise(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in pairwise(edges)):
            raise ValueError("each edge must be above the one before it")
        return edges

    @property
    def columns(self) -> int:
        """Of what `Model.predict` returns."""
        return 1

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The bins by name, from the lowest."""
        names = [f"{edge:.12g}" for edge in self.edges]
        return (f"below {names[0]}", *(f"{low} to {high}" for low, high in pairwise(names)), f"{names[-1]} or more")

    def class_of(self, label: Label) -> str:
        return self.classes[bisect_right(self.edges, float(label))]

    def is_same(self, one: object, other: object) -> bool:
        return isinstance(one, int | float) and isinstance(other, int | float) and abs(one - other) <= self.tolerance

    def predictions(self, outputs: torch.Tensor) -> list[Prediction]:
        """The number of each row."""
        return [Prediction(number) for number in outputs[:, 0].tolist()]


AnswerKind = Annotated[Labels | Number, Field(discriminator="kind")]


def counted_as(own: AnswerKind, yardstick: str | None) -> AnswerKind:
    """Count and compare a version's answers like those of another version, so that the two can be compared.

    Args:
        own: how the version would do it by itself.
        yardstick: the `answer` of the other version's schema as JSON; None when there is no other.

    Raises: pydantic.ValidationError when `yardstick` is something else.
    """
    if yardstick is None:
        return own
    other: AnswerKind = TypeAdapter(AnswerKind).validate_json(yardstick)
    is_number = isinstance(own, Number) and isinstance(other, Number)
    return other if is_number else own  # names count as themselves in every version
