"""Turn request bodies into checked values, or say which row and column is wrong and why."""

import reprlib
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, WithJsonSchema, create_model

from contract.answer_types import Label, Labels, Number
from contract.model_files import Schema
from service.server.fast_json import FastRowReader
from service.server.problems import Problem

REQUEST_ID_PATTERN = r"^[A-Za-z0-9._:-]{1,128}$"


class Body(BaseModel):
    """Base of the request bodies: no unknown fields, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True)


class FeedbackBody(Body):
    """The body of POST /feedback: the truth, one label per row of that request."""

    request_id: str = Field(pattern=REQUEST_ID_PATTERN)
    labels: Sequence[Label] = Field(min_length=1)


class LabelFeedbackBody(FeedbackBody):
    """The truth about a request: one name per row."""

    # A label is a name, and 3 may be written for "3". Strict mode would refuse the number.
    model_config = ConfigDict(strict=False, coerce_numbers_to_str=True)

    labels: list[str] = Field(min_length=1, fail_fast=True)


LONGEST_LABEL = 256  # characters, of a truth; more where the model itself has a longer one


class NumberFeedbackBody(FeedbackBody):
    """The truth about a request: one number per row."""

    labels: list[FiniteFloat] = Field(min_length=1, fail_fast=True)


def bodies(schema: Schema) -> tuple[type[Body], type[FeedbackBody]]:
    """The bodies of POST /predict and POST /feedback for one model. `BodyParser` checks each feature's own bounds."""
    width, names = len(schema.features), ", ".join(feature.name for feature in schema.features)
    lowest, highest = min(f.minimum for f in schema.features), max(f.maximum for f in schema.features)
    value = Annotated[FiniteFloat, WithJsonSchema({"type": "number", "minimum": lowest, "maximum": highest})]
    # Stop at the first error: listing 60,000 of them would take longer than answering.
    row = Annotated[
        list[value], Field(min_length=width, max_length=width, fail_fast=True, description=f"One row: {names}")
    ]
    rows = Annotated[list[row], Field(min_length=1, max_length=schema.max_rows, fail_fast=True)]
    predict = create_model("PredictBody", __base__=Body, __doc__="Rows to answer.", features=(rows, ...))
    if isinstance(schema.answer, Number):
        return predict, NumberFeedbackBody
    longest = max(LONGEST_LABEL, *map(len, schema.answer.labels))
    truth = Annotated[list[Annotated[str, Field(max_length=longest)]], Field(min_length=1, fail_fast=True)]
    feedback = create_model("LabelFeedbackBody", __base__=LabelFeedbackBody, labels=(truth, ...))
    return predict, feedback


class BodyParser:
    """Reads the bodies of requests to one model."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._body, self._feedback = bodies(schema)
        self._fast_reader = FastRowReader(len(schema.features), schema.max_rows)
        self._minima = np.array([feature.minimum for feature in schema.features])
        self._maxima = np.array([feature.maximum for feature in schema.features])

    def rows(self, body: bytes) -> NDArray[np.float32]:
        """Return the rows in `body`, shape (rows, features). Raises Problem."""
        rows = self._fast_reader.rows(body)
        if rows is None:
            try:
                parsed = cast("Any", self._body.model_validate_json(body))
            except ValidationError as error:
                raise self._problem(error) from None
            rows = np.array(parsed.features)
        outside = (rows < self._minima) | (rows > self._maxima)
        if outside.any():
            row, column = (int(index) for index in np.argwhere(outside)[0])
            feature = self._schema.features[column]
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"{self._place(row, column)}: expected {feature.minimum:g} to {feature.maximum:g}, "
                f"saw {rows[row, column]:g}",
                pointer=f"#/features/{row}/{column}",
            )
        return rows.astype(np.float32)

    def feedback(self, body: bytes) -> FeedbackBody:
        """Return the feedback in `body`. Raises Problem."""
        try:
            return self._feedback.model_validate_json(body)
        except ValidationError as error:
            raise body_problem(error) from None

    def first_unknown(self, labels: Sequence[Label]) -> Label | None:
        """The first of `labels` that this model cannot answer with; None: it can with all."""
        answer = self._schema.answer
        own = frozenset(answer.labels) if isinstance(answer, Labels) else frozenset()
        return next((label for label in labels if label not in own), None)

    def _problem(self, error: ValidationError) -> Problem:
        first = error.errors(include_url=False)[0]
        match first["loc"]:
            case ("features",) if first["type"] in ("too_short", "too_long"):
                reason = f"features: expected 1 to {self._schema.max_rows} rows, saw {_size(first['input'])}"
            case ("features", int(row)) if first["type"] in ("too_short", "too_long"):
                reason = f"row {row}: expected {len(self._schema.features)} columns, saw {_size(first['input'])}"
            case ("features", int(row)):
                reason = f"row {row}: expected a list of numbers, saw {reprlib.repr(first['input'])}"
            case ("features", int(row), int(column)):
                reason = f"{self._place(row, column)}: expected a finite number, saw {reprlib.repr(first['input'])}"
            case _:
                return body_problem(error)
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, reason, pointer=_pointer(first["loc"]))

    def _place(self, row: int, column: int) -> str:
        name = self._schema.features[column].name if column < len(self._schema.features) else "beyond the last"
        return f"row {row}, column {column} ({name})"


def body_problem(error: ValidationError) -> Problem:
    """Say what is wrong with a body, without words of our own for its rows."""
    first = error.errors(include_url=False)[0]
    match first["type"]:
        case "json_invalid":
            return Problem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {first['ctx']['error']}")
        case "missing":
            reason = "this field is required"
        case "extra_forbidden":
            reason = "unknown field; remove it"
        case _:
            reason = f"{first['msg']}, saw {reprlib.repr(first['input'])}"
    place = ".".join(str(part) for part in first["loc"]) or "the body"
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{place}: {reason}", pointer=_pointer(first["loc"]))


def _pointer(location: tuple[int | str, ...]) -> str:
    return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def _size(value: object) -> int:
    return len(value) if isinstance(value, list) else 0
