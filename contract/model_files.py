"""The files that training writes beside a model's weights: plain JSON, readable without the model's code.

schema.json       what a request may hold, and whether an answer is a label or a number: `Schema`
golden.jsonl      requests with their expected answers, replayed before any traffic: `Golden`
samples.jsonl     held-out rows with the truth about them, for load tests: `Sample`
reference.jsonl   held-out rows with this model's own answers, against which drift is measured: `Reference`
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from contract.answer_types import AnswerKind, Label, Prediction
from contract.records import Record, Unknown

SCHEMA_FILE = "schema.json"
GOLDEN_FILE = "golden.jsonl"
SAMPLES_FILE = "samples.jsonl"
REFERENCE_FILE = "reference.jsonl"

Logged = Literal["plain", "hashed", "never"]  # in the prediction log; a private column is not `plain`


Value = float | str | None  # what a request says for one feature; None: it is missing

MISSING = "(missing)"  # the name of a missing value if all values are texts

_SHOWN = 5  # categories in one sentence
_MOST_DEFAULTS = 100_000


class Feature(Record):
    """One input column. A value outside [minimum, maximum] is refused, never clipped.

    A feature with `categories` takes a text instead, and the model gets its index in them. A missing value is NaN.
    """

    name: str
    minimum: float = math.nan  # needed, unless there are categories
    maximum: float = math.nan
    logged: Logged = "plain"
    # A default is not written, so that Bentos built before this field existed can read the schema.
    categories: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names, fail_fast=True)
    may_be_missing: bool = Field(default=False, exclude_if=lambda may: not may)

    @model_validator(mode="before")
    @classmethod
    def _categories_are_the_bounds(cls, given: Any) -> Any:
        if isinstance(given, dict) and (names := given.get("categories")):
            return {"minimum": 0, "maximum": len(names) - 1} | given
        return given

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if math.isnan(self.minimum) or math.isnan(self.maximum):
            raise ValueError(f"feature {self.name!r} needs `minimum` and `maximum`, or `categories`")
        if self.minimum > self.maximum:
            raise ValueError(f"feature {self.name!r}: minimum {self.minimum} is above maximum {self.maximum}")
        if twice := _twice(self.categories):
            raise ValueError(f"feature {self.name!r} has a category twice: {', '.join(twice)}")
        if self.may_be_missing and MISSING in self.categories:
            raise ValueError(f"feature {self.name!r}: no category may be called {MISSING!r}, as a missing value is")
        if self.categories and (self.minimum, self.maximum) != (0, len(self.categories) - 1):
            raise ValueError(f"feature {self.name!r} has categories; leave `minimum` and `maximum` out")
        return self

    @cached_property
    def _places(self) -> dict[str, float]:
        return {name: float(place) for place, name in enumerate(self.categories)}

    @property
    def expected(self) -> str:
        """The values that are accepted, in words."""
        if self.categories:
            more = len(self.categories) - _SHOWN
            shown = ", ".join(map(repr, self.categories[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
            kind = f"one of {shown}"
        else:
            kind = f"{self.minimum:g} to {self.maximum:g}"
        return f"{kind}, or null" if self.may_be_missing else kind

    def number(self, value: Value) -> float:
        """The number that the model gets for a value of a request. Raises ValueError that says what is expected."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            found = math.nan if self.may_be_missing else None
        elif self.categories:
            found = self._places.get(value) if isinstance(value, str) else None
        elif isinstance(value, str | bool) or not self.minimum <= value <= self.maximum:
            found = None
        else:
            found = float(value)
        if found is None:
            raise ValueError(f"expected {self.expected}")
        return found

    def value(self, number: float) -> Value:
        """The request value for which the model gets `number`. Reverses `number`."""
        if math.isnan(number):
            return None
        return self.categories[int(number)] if self.categories else number


class Schema(Record):
    """What a request may hold and what kind of answer it gets."""

    # Reading stops at the first mistake: a hostile schema could have a million, and each takes memory.
    features: tuple[Feature, ...] = Field(fail_fast=True)  # in column order
    answer: AnswerKind
    max_rows: int = Field(default=1024, ge=1)  # most rows in one request
    # By feature name: the value for requests of callers that do not know the feature yet.
    defaults: dict[str, Value] = Field(default={}, exclude_if=lambda values: not values)

    @field_validator("features")
    @classmethod
    def _names_differ(cls, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        if not features:
            raise ValueError("write at least 1 of them")
        if twice := _twice(feature.name for feature in features):
            raise ValueError(f"two features have the same name: {', '.join(twice)}")
        return features

    @field_validator("defaults", mode="before")
    @classmethod
    def _no_default_is_a_bool(cls, given: Any) -> Any:
        """A bool is not a value of a request, and would silently become 0 or 1."""
        if isinstance(given, dict) and len(given) > _MOST_DEFAULTS:
            raise ValueError(f"defaults: expected at most {_MOST_DEFAULTS:,}, saw {len(given):,}")
        for name, value in given.items() if isinstance(given, dict) else ():
            if isinstance(value, bool):
                raise ValueError(f"defaults: {name}: expected a number, a text or null, saw {value!r}")
        return given

    @model_validator(mode="after")
    def _defaults_are_values(self) -> Self:
        known = {feature.name: feature for feature in self.features}
        for name, value in self.defaults.items():
            if name not in known:
                raise ValueError(f"defaults: there is no feature {name!r}")
            try:
                known[name].number(value)
            except ValueError as error:
                raise ValueError(f"defaults: {name}: {error}, saw {value!r}") from None
        return self

    @cached_property
    def least_columns(self) -> int:
        """The fewest columns of a row given as a list: features at its end may be left to their defaults."""
        columns = len(self.features)
        while columns > 1 and self.features[columns - 1].name in self.defaults:
            columns -= 1
        return columns

    @cached_property
    def absent(self) -> dict[str, float]:
        """By name, the number that the model gets for each feature that a row given by names may leave out."""
        missing = {feature.name: math.nan for feature in self.features if feature.may_be_missing}
        named = {one.name: one.number(self.defaults[one.name]) for one in self.features if one.name in self.defaults}
        return missing | named

    def logged_as(self, how: Logged) -> list[int]:
        """Indices of the features that are logged as `how`, in column order."""
        return [place for place, feature in enumerate(self.features) if feature.logged == how]

    def numbers(self, row: Sequence[Value]) -> list[float]:
        """The numbers that the model gets for a row of a request: a category's index, NaN for a missing value.

        Raises: ValueError that names the first feature whose value is refused.
        """
        if len(row) != len(self.features):
            raise ValueError(f"expected {len(self.features)} columns, saw {len(row)}")
        found = []
        for feature, value in zip(self.features, row, strict=True):
            try:
                found.append(feature.number(value))
            except ValueError as error:
                raise ValueError(f"{feature.name}: {error}, saw {value!r}") from None
        return found

    def values(self, row: Sequence[float]) -> list[Value]:
        """The request row for which the model gets the numbers `row`. Reverses `numbers`."""
        return [feature.value(number) for feature, number in zip(self.features, row, strict=True)]

    @classmethod
    def read(cls, folder: Path, *, unknown: Unknown = "forbid") -> Self:
        """Read the schema in `folder`. Raises OSError; pydantic.ValidationError if the file is not a schema."""
        return cls.model_validate_json((folder / SCHEMA_FILE).read_bytes(), extra=unknown)

    def write(self, folder: Path) -> None:
        (folder / SCHEMA_FILE).write_text(self.model_dump_json(indent=1) + "\n")


def _twice(names: Iterable[str]) -> list[str]:
    """The names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


class Golden(Record):
    """A request and the answers that every correct build of this model gives to it."""

    features: tuple[tuple[Value, ...], ...] = Field(min_length=1)  # rows, as in the body of a request
    predictions: tuple[Prediction, ...]  # one per row


class Sample(Record):
    """A held-out row and the truth about it."""

    features: tuple[Value, ...] = Field(min_length=1)
    label: Label
    tolerance: float = Field(default=0, ge=0)  # a number at most this far from `label` is correct


class Reference(Record):
    """A row that training never saw, this model's answer to it, and the truth. `reference_file` writes them."""

    features: tuple[Value, ...]  # only those that the schema logs `plain`, in column order
    prediction: Prediction
    truth: Label
