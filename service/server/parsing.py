"""Turns request bodies into validated values, or says which row and column is wrong and why."""

import reprlib
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, WithJsonSchema, create_model

from contract.answer_types import Label, Labels, Number
from contract.complaints import listed
from contract.model_files import Feature, Schema, Value
from service.server.fast_json import FastRowReader
from service.server.named_rows import NamedRows
from service.server.problems import Problem, pointer_to

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


BodyT = TypeVar("BodyT", bound=Body)

_LONGEST_NAME = 100  # characters of an unknown field that are shown
LONGEST_LABEL = 256  # characters of a truth; more if the model itself has a longer label


class NumberFeedbackBody(FeedbackBody):
    """The truth about a request: one number per row."""

    labels: list[FiniteFloat] = Field(min_length=1, fail_fast=True)


def bodies(schema: Schema) -> tuple[type[Body], type[FeedbackBody]]:
    """The body classes of POST /predict with lists and of POST /feedback, for one model. `BodyParser` checks values."""
    width, names = len(schema.features), ", ".join(feature.name for feature in schema.features)
    kind: Any = FiniteFloat if _is_numeric(schema) else FiniteFloat | str | None
    value = Annotated[kind, WithJsonSchema(_value_schema(schema.features))]
    # Stop at the first error: listing 60,000 errors would take longer than answering.
    row = Annotated[
        list[value],
        Field(min_length=schema.least_columns, max_length=width, fail_fast=True, description=f"One row: {names}"),
    ]
    rows = Annotated[list[row], Field(min_length=1, max_length=schema.max_rows, fail_fast=True)]
    predict = create_model("PredictBody", __base__=Body, __doc__="Rows to answer.", features=(rows, ...))
    if isinstance(schema.answer, Number):
        return predict, NumberFeedbackBody
    longest = max(LONGEST_LABEL, *map(len, schema.answer.labels))
    truth = Annotated[list[Annotated[str, Field(max_length=longest)]], Field(min_length=1, fail_fast=True)]
    feedback = create_model("LabelFeedbackBody", __base__=LabelFeedbackBody, labels=(truth, ...))
    return predict, feedback


def named_body(schema: Schema) -> type[Body]:
    """The body class of POST /predict with named features, for the OpenAPI page. `NamedRows` reads such bodies."""
    row = {
        "type": "object",
        "properties": {feature.name: _value_schema([feature]) for feature in schema.features},
        "required": [feature.name for feature in schema.features if feature.name not in schema.absent],
        "additionalProperties": False,
    }
    rows = Annotated[
        list[Annotated[dict[str, object], WithJsonSchema(row)]], Field(min_length=1, max_length=schema.max_rows)
    ]
    return create_model("NamedRowsBody", __base__=Body, __doc__="Rows that name their features.", rows=(rows, ...))


def _is_numeric(schema: Schema) -> bool:
    """Whether every value of a row is a number."""
    return not any(feature.categories or feature.may_be_missing for feature in schema.features)


def _value_schema(features: Sequence[Feature]) -> dict[str, Any]:
    """The JSON schema of a value that any of `features` accepts."""
    numbers = [feature for feature in features if not feature.categories]
    kinds: list[dict[str, Any]] = []
    if numbers:
        lowest, highest = min(one.minimum for one in numbers), max(one.maximum for one in numbers)
        kinds.append({"type": "number", "minimum": lowest, "maximum": highest})
    if words := list(dict.fromkeys(name for feature in features for name in feature.categories)):
        kinds.append({"enum": words})
    if any(feature.may_be_missing for feature in features):
        kinds.append({"type": "null"})
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


class BodyParser:
    """Reads the bodies of requests to one model."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._body, self._feedback = bodies(schema)
        self._is_numeric = _is_numeric(schema)
        self._fast_reader = FastRowReader(len(schema.features), schema.max_rows)
        self._has_words = any(feature.categories for feature in schema.features)
        self._named = NamedRows(schema)
        self._defaults = [schema.defaults.get(feature.name) for feature in schema.features]
        self._minima = np.array([feature.minimum for feature in schema.features])
        self._maxima = np.array([feature.maximum for feature in schema.features])

    def rows(self, body: bytes) -> tuple[NDArray[np.float32], bool]:
        """Return the rows in `body`, shape (rows, features), and whether it lists all of them. Raises Problem."""
        is_listed = True
        rows = None if self._has_words else self._fast_reader.rows(body)
        if rows is None:
            if (named := self._named.rows(body)) is not None:
                return named, False
            rows, is_listed = self._listed(body)
        outside = (rows < self._minima) | (rows > self._maxima)
        if np.count_nonzero(outside):  # takes a quarter of the time of `any`
            row, column = (int(index) for index in np.argwhere(outside)[0])
            saw = f"{rows[row, column]:g}"
            raise self._refusal(row, column, f"expected {self._schema.features[column].expected}", saw)
        return rows.astype(np.float32), is_listed

    def _listed(self, body: bytes) -> tuple[NDArray[np.float64], bool]:
        try:
            found: list[list[Value]] = cast("Any", _read(self._body, body)).features
        except ValidationError as error:
            raise self._problem(error) from None
        is_complete = all(len(row) == len(self._schema.features) for row in found)
        if not is_complete:
            found = [[*row, *self._defaults[len(row) :]] for row in found]
        if self._is_numeric:
            return np.array(found), is_complete
        numbers = ([self._number(row, *place) for place in enumerate(values)] for row, values in enumerate(found))
        return np.array(list(numbers)), is_complete

    def _number(self, row: int, column: int, value: Value) -> float:
        try:
            return self._schema.features[column].number(value)
        except ValueError as error:
            raise self._refusal(row, column, str(error), reprlib.repr(value)) from None

    def _refusal(self, row: int, column: int, expected: str, saw: str) -> Problem:
        detail = f"{self._place(row, column)}: {expected}, saw {saw}"
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, pointer=f"#/features/{row}/{column}")

    def feedback(self, body: bytes) -> FeedbackBody:
        """Return the feedback in `body`. Raises Problem."""
        try:
            return _read(self._feedback, body)
        except ValidationError as error:
            raise body_problem(error) from None

    def first_unknown(self, labels: Sequence[Label]) -> Label | None:
        """The first of `labels` that this model cannot give; None: it can give all."""
        answer = self._schema.answer
        own = frozenset(answer.labels) if isinstance(answer, Labels) else frozenset()
        return next((label for label in labels if label not in own), None)

    def _problem(self, error: ValidationError) -> Problem:
        first = listed(error)[0]
        match first["loc"]:
            case ("features",) if first["type"] in ("too_short", "too_long"):
                reason = f"features: expected 1 to {self._schema.max_rows} rows, saw {_size(first['input'])}"
            case ("features", int(row)) if first["type"] in ("too_short", "too_long"):
                reason = f"row {row}: expected {self._widths} columns, saw {_size(first['input'])}"
            case ("features", int(row)):
                reason = f"row {row}: expected a list of numbers, saw {reprlib.repr(first['input'])}"
            case ("features", int(row), int(column)):
                reason = f"{self._place(row, column)}: expected a finite number, saw {reprlib.repr(first['input'])}"
            case ("features", int(row), int(column), *_):  # neither a number nor a text
                return self._refusal(row, column, *self._wanted(column, first["input"]))
            case _:
                return body_problem(error)
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, reason, pointer=pointer_to(first["loc"]))

    @property
    def _widths(self) -> str:
        least, most = self._schema.least_columns, len(self._schema.features)
        return str(most) if least == most else f"{least} to {most}"

    def _wanted(self, column: int, value: object) -> tuple[str, str]:
        features = self._schema.features
        wanted = features[column].expected if column < len(features) else "no more columns"
        return f"expected {wanted}", reprlib.repr(value)

    def _place(self, row: int, column: int) -> str:
        name = self._schema.features[column].name if column < len(self._schema.features) else "beyond the last"
        return f"row {row}, column {column} ({name})"


def _read(kind: type[BodyT], body: bytes) -> BodyT:
    """Read the body as `kind`. Raises ValidationError, Problem.

    Unknown fields are refused here first. pydantic makes an error for each of them: a body of 4 MB full of them used
    400 MB and blocked the event loop for seconds.
    """
    found = kind.model_validate_json(body, extra="allow")
    for name in found.model_extra or ():
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"{name[:_LONGEST_NAME]}: unknown field; remove it",
            pointer=pointer_to((name,)) if len(name) <= _LONGEST_NAME else None,
        )
    return found


def body_problem(error: ValidationError) -> Problem:
    """What is wrong with a body, for errors outside its rows."""
    first = listed(error)[0]
    match first["type"]:
        case "json_invalid":
            return Problem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {first['ctx']['error']}")
        case "missing":
            reason = "this field is required"
        case _:
            reason = f"{first['msg']}, saw {reprlib.repr(first['input'])}"
    place = ".".join(str(part) for part in first["loc"]) or "the body"
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{place}: {reason}", pointer=pointer_to(first["loc"]))


def _size(value: object) -> int:
    return len(value) if isinstance(value, list) else 0
