"""The fast reader accepts only what the validator accepts, and reads the same numbers."""

import json

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.answer_types import Labels
from contract.model_files import Feature, Schema
from service.server.fast_json import FastRowReader
from service.server.parsing import bodies

SCHEMA = Schema(
    features=tuple(Feature(name=name, minimum=-1e30, maximum=1e30) for name in "ab"),
    answer=Labels(labels=("no", "yes")),
    max_rows=3,
)
VALIDATOR, _ = bodies(SCHEMA)
READER = FastRowReader(width=2, max_rows=3)

PIECES = [
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b'"',
    b"true",
    b"null",
    b"1",
    b".5",
    b"e9",
    b"-",
    b" ",
    b"\xef\xbb\xbf",
    b"",
]
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
good = st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=1, max_size=3)
near = good | st.lists(
    st.lists(numbers | st.booleans() | st.text(max_size=2) | st.lists(numbers), max_size=3), max_size=4
)


def as_the_validator(body: bytes) -> list[list[float]] | None:
    try:
        parsed = VALIDATOR.model_validate_json(body)
    except ValidationError:
        return None
    return parsed.features  # type: ignore[attr-defined, no-any-return] # made for the schema


def as_the_reader(body: bytes) -> list[list[float]] | None:
    rows = READER.rows(body)
    return None if rows is None else rows.tolist()


@given(near, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2), st.sampled_from(PIECES)), max_size=3))
@settings(max_examples=500)
@example(rows=[[1.0, 2.0]], edits=[(0, 0, b"\xef\xbb\xbf")])
def test_the_validator_accepts_every_body_that_the_reader_accepts(
    rows: list[object], edits: list[tuple[int, int, bytes]]
) -> None:
    """The bodies are almost valid: other types, other shapes, and bytes replaced by pieces of JSON."""
    body = json.dumps({"features": rows}).encode()
    for place, removed, piece in edits:
        body = body[:place] + piece + body[place + removed :]
    found = as_the_reader(body)
    assert found is None or found == as_the_validator(body)


@given(st.lists(st.tuples(st.integers(-(2**53), 2**53), st.floats(-1e300, 1e300)), min_size=1, max_size=3))
def test_a_valid_body_is_read_by_the_fast_reader(rows: list[tuple[int, float]]) -> None:
    """Otherwise the fast reader would never be used."""
    assert as_the_reader(orjson.dumps({"features": rows})) == [[float(one), other] for one, other in rows]


@pytest.mark.parametrize(
    "body",
    [
        b'{"features":[[1,2]],"features":[[3,4]]}',
        b'{"features":[[1,2]],"more":1}',
        b'{"features":[[[1],[2]]]}',
        b'{"features":[[[1,2]],[3,4]]}',
        b'{"features":[[1],[2,3,4]]}',
        b'{"features":[[1,true]]}',
        b'{"features":[[1,"2"]]}',
        b'{"features":[[1,null]]}',
        b'{"features":[{"a":1,"b":2}]}',
        b'{"features":[[1,NaN]]}',
        b'{"features":[[1,1e999]]}',
        b'{"features":[]}',
        b'{"features":[[1,2],[1,2],[1,2],[1,2]]}',
        b'\xef\xbb\xbf{"features":[[1,2]]}',
        b'[{"features":[[1,2]]}]',
        b"",
    ],
)
def test_any_other_body_is_left_to_the_validator(body: bytes) -> None:
    """Duplicate names, nested lists, uneven rows, other types, too many rows: simdjson accepts some of these."""
    assert as_the_reader(body) is None


def test_a_refused_body_does_not_affect_the_next() -> None:
    """The parser reuses its memory."""
    for _ in range(3):
        assert as_the_reader(b'{"features":[[1,{}]]}') is None
        assert as_the_reader(b'{"features":[[1,2]]}') == [[1, 2]]
