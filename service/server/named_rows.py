"""Reads rows that name their features, in any order: `{"rows": [{"age": 30, ...}, ...]}`."""

import math
import reprlib
from http import HTTPStatus

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic_core import from_json

from contract.complaints import nearest
from contract.model_files import Schema
from service.server.problems import Problem, pointer_to

_INSTEAD = "write null for a missing value"


class NamedRows:
    """Reads named rows for one model."""

    def __init__(self, schema: Schema) -> None:
        self._max_rows = schema.max_rows
        self._columns = {feature.name: (column, feature) for column, feature in enumerate(schema.features)}
        self._absent = [schema.absent.get(feature.name, math.nan) for feature in schema.features]
        self._needed = self._columns.keys() - schema.absent.keys()

    def rows(self, body: bytes) -> NDArray[np.float32] | None:
        """Return the rows, shape (rows, features); None if the body has no key `rows`. Raises Problem."""
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            _refuse_what_is_no_number(body)
            return None
        if not isinstance(document, dict) or "rows" not in document:
            return None
        if other := next((str(key) for key in document if key != "rows"), None):
            advice = "send either `rows` or `features`" if other == "features" else "unknown field; remove it"
            raise _refused((other,), f"{other}: {advice}")
        rows = document["rows"]
        if not isinstance(rows, list) or not 0 < len(rows) <= self._max_rows:
            saw = len(rows) if isinstance(rows, list) else reprlib.repr(rows)
            raise _refused(("rows",), f"rows: expected 1 to {self._max_rows} rows, saw {saw}")
        return np.array([self._row(number, row) for number, row in enumerate(rows)], np.float32)

    def _row(self, number: int, row: object) -> list[float]:
        if not isinstance(row, dict):
            raise _refused(("rows", number), f"row {number}: expected names with values, saw {reprlib.repr(row)}")
        found = self._absent.copy()
        for name, value in row.items():
            if name not in self._columns:
                detail = f"row {number}: there is no feature `{reprlib.repr(name)[1:-1]}`{nearest(name, self._columns)}"
                raise _refused(("rows", number, name), detail)
            column, feature = self._columns[name]
            try:
                found[column] = feature.number(value)
            except (ValueError, TypeError):
                detail = f"row {number}, {name}: expected {feature.expected}, saw {reprlib.repr(value)}"
                raise _refused(("rows", number, name), detail) from None
        if lacking := self._needed - row.keys():
            name = min(lacking, key=lambda one: self._columns[one][0])
            detail = f"row {number}: `{name}` is missing; expected {self._columns[name][1].expected}"
            raise _refused(("rows", number), detail)
        return found


def _refuse_what_is_no_number(body: bytes) -> None:
    """Refuse named rows with NaN, which pandas writes for a missing value, or with a number too large for a float.

    Raises: Problem. It says nothing about any other body.
    """
    try:
        document = from_json(body)
    except ValueError:
        return
    if not isinstance(document, dict) or "rows" not in document:
        return
    rows = document["rows"] if isinstance(document["rows"], list) else []
    cells = ((n, name, value) for n, row in enumerate(rows) if isinstance(row, dict) for name, value in row.items())
    for number, name, value in cells:
        if isinstance(value, float) and not math.isfinite(value):
            what = f"row {number}, {reprlib.repr(name)[1:-1]}: expected a finite number, saw {value}"
            raise _refused(("rows", number, name), f"{what}; {_INSTEAD}")
    raise _refused(("rows",), f"rows: expected finite numbers; {_INSTEAD}")


def _refused(place: tuple[int | str, ...], detail: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, pointer=pointer_to(place))
