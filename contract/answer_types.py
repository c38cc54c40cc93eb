"""The two kinds of answer that a model can give to a row: one of several names, or a number.

Each kind says which of a few classes an answer counts as, and when two answers are the same. A model's schema names its
kind. How a network's output becomes an answer is decided in service/.
"""

import unicodedata
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import floor, log10, ulp
from statistics import quantiles
from sys import float_info
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, field_validator

from contract.records import Record

Label = str | float  # what an answer says, and what the truth turns out to be

_UNSAFE = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control characters, surrogates, line and paragraph separators

_SINGLE_PRECISION = 2e-7  # relative error of a float32
_LAST_PLACES = 16  # error of a few operations with float64, in units of the last place
_FEW = 200  # rounding an edge may move at most one in 200 answers to the next bin
_MOST_DECIMALS = 330  # enough for the smallest float64


def class_name(label: str) -> str:
    r"""The name under which a label is counted. Every metric store keeps this name unchanged.

    Prometheus drops an empty label, and other stores end a line at U+2028. So an empty label becomes two quotation
    marks, and such characters become escapes like `\u2028`. All other labels are their own name.
    """
    if label.isprintable() and label:
        return label
    return "".join(_escaped(character) for character in label) or '""'


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one row."""

    label: Label
    confidence: float | None = None  # the model's own probability of `label`, 0-1; None: the model gives none


class Labels(Record):
    """The answer is one of several names; `Model.predict` gives the probability of each."""

    kind: Literal["label"] = "label"
    labels: tuple[str, ...] = Field(fail_fast=True)  # in the order of the columns of `Model.predict`

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if not labels:
            raise ValueError("write at least 1 of them")
        named: defaultdict[str, list[int]] = defaultdict(list)
        for column, label in enumerate(labels):
            named[class_name(label)].append(column)
        for name, columns in named.items():
            if len(columns) > 1:
                raise ValueError(f"labels {', '.join(map(str, columns))} have the same name: {name}")
        return labels

    @property
    def columns(self) -> int:
        """The number of columns that `Model.predict` returns."""
        return len(self.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that answers are counted in."""
        return tuple(map(class_name, self.labels))

    def class_of(self, label: Label) -> str:
        return class_name(str(label))

    def is_same(self, one: object, other: object) -> bool:
        return one == other


class Number(Record):
    """The answer is a number: the one column of `Model.predict`."""

    kind: Literal["number"] = "number"
    tolerance: float = Field(ge=0)  # two answers, or an answer and the truth, are the same when at most this far apart
    edges: tuple[float, ...] = Field(max_length=1000, fail_fast=True)  # rising; they bound the bins of the counts

    @classmethod
    def binned(cls, answers: Iterable[float], *, tolerance: float, bins: int = 10) -> Self:
        """Choose edges so that each bin holds about equally many of `answers`: a model's answers to typical rows.

        An edge lies between answers, never on one that is common: another version may give 0.89999998 for 0.9.
        """
        values = sorted(float(answer) for answer in answers)
        rising = _distinct(values)
        if len(rising) == 1:
            reach = 2 * tolerance or abs(rising[0]) / 100 or 1.0
            return cls(tolerance=tolerance, edges=(rising[0] - reach, rising[0] + reach))
        wanted = quantiles(values, n=bins, method="inclusive")
        places = sorted({bisect_left(rising, edge) for edge in wanted} - {0, len(rising)})
        gaps = [(rising[place - 1], rising[place]) for place in places or [1]]
        return cls(tolerance=tolerance, edges=tuple(_rounded([low / 2 + high / 2 for low, high in gaps], values)))

    @field_validator("edges")
    @classmethod
    def _edges_rise(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if not edges:
            raise ValueError("write at least 1 of them")
        if any(low >= high for low, high in pairwise(edges)):
            raise ValueError("each edge must be above the one before it")
        return edges

    @property
    def columns(self) -> int:
        """The number of columns that `Model.predict` returns."""
        return 1

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the bins, from the lowest."""
        names = [_shown(edge) for edge in self.edges]
        return (f"below {names[0]}", *(f"{low} to {high}" for low, high in pairwise(names)), f"{names[-1]} or more")

    def class_of(self, label: Label) -> str:
        return self.classes[bisect_right(self.edges, float(label))]

    def is_same(self, one: object, other: object) -> bool:
        return isinstance(one, int | float) and isinstance(other, int | float) and abs(one - other) <= self.tolerance


def _noise(number: float, spread: float) -> float:
    """The largest rounding difference between two computations of the same answer.

    Args:
        spread: the highest answer minus the lowest; if the answers hardly differ, smaller differences matter.
    """
    return max(_LAST_PLACES * ulp(number), min(_SINGLE_PRECISION * abs(number), spread / 1000))


def _distinct(rising: list[float]) -> list[float]:
    """The smallest number of each group whose members differ only by rounding."""
    spread, kept = rising[-1] - rising[0], rising[:1]
    for number in rising[1:]:
        if number - kept[-1] > _noise(number, spread):
            kept.append(number)
    return kept


def _rounded(edges: list[float], values: list[float]) -> list[float]:
    """`edges`, rounded to the fewest decimals that keep nearly all of the sorted `values` in their bins."""
    spread = values[-1] - values[0]
    distance = min(*(high - low for low, high in pairwise(edges)), spread, float_info.max)
    return [_rounded_edge(edge, values, distance, _noise(edge, spread)) for edge in edges]


def _rounded_edge(edge: float, values: list[float], distance: float, noise: float) -> float:
    for decimals in range(2 - floor(log10(distance)), _MOST_DECIMALS):
        rounded = round(edge, decimals)
        low, high = min(rounded, edge) - noise, max(rounded, edge) + noise
        if bisect_right(values, high) - bisect_left(values, low) <= len(values) // _FEW:
            return rounded
    return edge


def _shown(number: float) -> str:
    """The shortest text of `number` that no other number has."""
    short = f"{number:.12g}"
    return short if float(short) == number else repr(number)


AnswerKind = Annotated[Labels | Number, Field(discriminator="kind")]


def counted_as(own: AnswerKind, comparison_schema: str | None) -> AnswerKind:
    """Choose how a version's answers are counted: with the bins of the other version, so that counts can be compared.

    Args:
        own: the `answer` of the version's own schema.
        comparison_schema: the `answer` of the other version's schema as JSON; None when there is no other.

    Raises: pydantic.ValidationError if `comparison_schema` is not the JSON of an `answer`.
    """
    if comparison_schema is None:
        return own
    other: AnswerKind = TypeAdapter(AnswerKind).validate_json(comparison_schema)
    is_number = isinstance(own, Number) and isinstance(other, Number)
    return other if is_number else own  # names count as themselves in every version
