"""Request bodies: accepted values arrive unchanged, and a refusal says where and why."""

import json
import random
from collections.abc import Iterable, Sequence
from http import HTTPStatus

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.answer_types import Labels
from contract.model_files import Feature, Schema
from service.server.parsing import BodyParser
from service.server.problems import Problem
from tests.support.peak import at_most

SCHEMA = Schema(
    features=(
        Feature(name="age", minimum=0, maximum=120),
        Feature(name="change", minimum=-1, maximum=1),
        Feature(name="income", minimum=0, maximum=1e6),
    ),
    answer=Labels(labels=("no", "yes")),
    max_rows=4,
)
PARSER = BodyParser(SCHEMA)
GOOD_ROW = [30, 0.5, 1000]
MIXED = Schema(
    features=(
        Feature(name="age", minimum=0, maximum=120, may_be_missing=True),
        Feature(name="colour", categories=("red", "green", "blue")),
        Feature(name="port", categories=("C", "Q"), may_be_missing=True),
        Feature(name="income", minimum=0, maximum=1e6),
    ),
    answer=Labels(labels=("no", "yes")),
    max_rows=4,
)
MIXED_PARSER = BodyParser(MIXED)

rows_in_bounds = st.lists(
    st.tuples(*(st.floats(feature.minimum, feature.maximum, width=32) for feature in SCHEMA.features)),
    min_size=1,
    max_size=SCHEMA.max_rows,
)
any_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.just("features"), inner),
    max_leaves=20,
)


of_rows = st.builds(
    lambda key, rows: {key: rows},
    st.sampled_from(["features", "rows"]),
    st.lists(
        st.lists(any_json, max_size=4) | st.dictionaries(st.sampled_from(["age", "colour", "x"]), any_json), max_size=6
    ),
)
mixed_rows = st.lists(
    st.tuples(
        st.none() | st.floats(0, 120, width=32),
        st.sampled_from(["red", "green", "blue"]),
        st.sampled_from([None, "C", "Q"]),
        st.floats(0, 1e6, width=32),
    ),
    min_size=1,
    max_size=4,
)


def refused(body: bytes, parser: BodyParser = PARSER) -> Problem:
    with pytest.raises(Problem) as caught:
        parser.rows(body)
    return caught.value


def named(rows: Iterable[Sequence[object]], schema: Schema = MIXED) -> dict[str, object]:
    names = [feature.name for feature in schema.features]
    return {"rows": [dict(zip(names, row, strict=True)) for row in rows]}


@given(rows_in_bounds)
def test_rows_within_the_schema_arrive_unchanged(rows: list[tuple[float, ...]]) -> None:
    """Every value that the schema allows reaches the model as it was sent, as float32."""
    parsed, is_listed = PARSER.rows(orjson.dumps({"features": rows}))
    assert (parsed.dtype, parsed.tolist(), is_listed) == (np.float32, [list(row) for row in rows], True)


@given(any_json | of_rows)
def test_any_json_is_parsed_or_refused_with_a_problem(document: object) -> None:
    """Every failure of the parser is a 4xx problem."""
    for parser in (PARSER, MIXED_PARSER):
        status = HTTPStatus.OK
        try:
            parser.rows(json.dumps(document).encode())
        except Problem as problem:
            status = problem.status
        assert status < HTTPStatus.INTERNAL_SERVER_ERROR


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_problem(body: bytes) -> None:
    """Random bytes are the client's mistake, never the server's."""
    assert 400 <= refused(body).status < 500


@given(rows_in_bounds, st.data())
def test_a_value_out_of_bounds_is_located_by_row_and_column(rows: list[tuple[float, ...]], data: st.DataObject) -> None:
    """The first value outside its bounds is found wherever it is."""
    row = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.integers(0, len(SCHEMA.features) - 1))
    changed = [list(values) for values in rows]
    changed[row][column] = SCHEMA.features[column].maximum + 1
    assert refused(orjson.dumps({"features": changed})).pointer == f"#/features/{row}/{column}"


@pytest.mark.parametrize(
    ("features", "detail"),
    [
        ([], "features: expected 1 to 4 rows, saw 0"),
        ([GOOD_ROW] * 5, "features: expected 1 to 4 rows, saw 5"),
        ([GOOD_ROW, [1, 2]], "row 1: expected 3 columns, saw 2"),
        ([GOOD_ROW, [1, 0, 3, 4]], "row 1: expected 3 columns, saw 4"),
        ([GOOD_ROW, 7], "row 1: expected a list of numbers, saw 7"),
        ([[30, float("nan"), 1000]], "row 0, column 1 (change): expected a finite number, saw nan"),
        ([[30, float("inf"), 1000]], "row 0, column 1 (change): expected a finite number, saw inf"),
        ([[True, 0, 1000]], "row 0, column 0 (age): expected a finite number, saw True"),
        ([["30", 0, 1000]], "row 0, column 0 (age): expected a finite number, saw '30'"),
        ([[30, None, 1000]], "row 0, column 1 (change): expected a finite number, saw None"),
        ([[30, 0, -1]], "row 0, column 2 (income): expected 0 to 1e+06, saw -1"),
        ("all", "features: Input should be a valid array, saw 'all'"),
    ],
)
def test_a_refusal_names_the_expected_and_the_actual_value(features: object, detail: str) -> None:
    """Each kind of bad row has its own sentence with the location."""
    problem = refused(json.dumps({"features": features}).encode())
    assert (problem.status, problem.detail) == (HTTPStatus.UNPROCESSABLE_ENTITY, detail)


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"", HTTPStatus.BAD_REQUEST, "the body is not JSON: EOF while parsing a value at line 1 column 0"),
        (b"{", HTTPStatus.BAD_REQUEST, "the body is not JSON: EOF while parsing an object at line 1 column 1"),
        (b"[1]", HTTPStatus.UNPROCESSABLE_ENTITY, "the body: Input should be an object, saw [1]"),
        (b"{}", HTTPStatus.UNPROCESSABLE_ENTITY, "features: this field is required"),
        (
            b'{"features": [[30, 0.5, 1000]], "model": "v2"}',
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "model: unknown field; remove it",
        ),
    ],
)
def test_a_body_of_the_wrong_form_is_refused(body: bytes, status: HTTPStatus, detail: str) -> None:
    """A body that is not JSON gets 400; other JSON gets 422."""
    problem = refused(body)
    assert (problem.status, problem.detail) == (status, detail)


def test_a_refusal_does_not_repeat_a_large_input() -> None:
    """A megabyte of the caller's text is shortened in the answer."""
    assert len(refused(json.dumps({"features": [["x" * 1_000_000, 0, 0]]}).encode()).detail) < 200


def test_a_label_that_is_too_long_is_refused() -> None:
    """No real label has a megabyte; a model whose own labels are long accepts them."""
    long = json.dumps({"request_id": "a", "labels": ["x" * 1_000_000]}).encode()
    with pytest.raises(Problem) as caught:
        PARSER.feedback(long)
    assert (caught.value.status, len(caught.value.detail) < 200) == (HTTPStatus.UNPROCESSABLE_ENTITY, True)
    wordy = SCHEMA.model_copy(update={"answer": Labels(labels=("no", "y" * 2_000))})
    body = json.dumps({"request_id": "a", "labels": ["y" * 2_000]}).encode()
    assert BodyParser(wordy).feedback(body).labels == ["y" * 2_000]


def test_feedback_may_write_a_label_as_a_number() -> None:
    """3 and "3" name the same label."""
    assert PARSER.feedback(b'{"request_id": "a-1", "labels": [3, "4"]}').labels == ["3", "4"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"request_id": "a", "labels": []}',
        b'{"request_id": "", "labels": ["1"]}',
        b'{"request_id": "a b", "labels": ["1"]}',
        b'{"request_id": "a", "labels": [true]}',
        b'{"request_id": "a", "labels": "1"}',
        b'{"labels": ["1"]}',
    ],
)
def test_feedback_of_the_wrong_form_is_refused(body: bytes) -> None:
    """Each gets a 422 with a pointer to the place."""
    with pytest.raises(Problem) as caught:
        PARSER.feedback(body)
    assert (caught.value.status, caught.value.pointer is not None) == (HTTPStatus.UNPROCESSABLE_ENTITY, True)


@given(mixed_rows)
def test_categories_and_missing_values_reach_the_model_as_numbers(rows: list[tuple[float | str | None, ...]]) -> None:
    """A category becomes its index in the schema and a missing value NaN; the values can be recovered."""
    parsed, is_listed = MIXED_PARSER.rows(orjson.dumps({"features": rows}))
    assert is_listed
    assert [tuple(MIXED.values(row)) for row in parsed.tolist()] == rows


@given(mixed_rows, st.randoms())
def test_named_rows_are_equivalent_to_listed_rows(
    rows: list[tuple[float | str | None, ...]], luck: random.Random
) -> None:
    """The order does not matter, and features that may be missing may be left out."""
    (asked,) = named(rows).values()
    for row in asked:  # type: ignore[attr-defined] # a list
        items = [(name, value) for name, value in row.items() if value is not None or luck.random() < 0.5]
        luck.shuffle(items)
        row.clear()
        row.update(items)
    parsed, is_listed = MIXED_PARSER.rows(orjson.dumps({"rows": asked}))
    assert not is_listed
    np.testing.assert_array_equal(parsed, MIXED_PARSER.rows(orjson.dumps({"features": rows}))[0])


def test_a_model_with_only_numbers_also_accepts_names() -> None:
    """The schema needs no extra setting."""
    parsed, _ = PARSER.rows(orjson.dumps(named([GOOD_ROW], SCHEMA)))
    assert parsed.tolist() == [GOOD_ROW]


@pytest.mark.parametrize(
    ("body", "detail", "pointer"),
    [
        (
            {"features": [[30, "pink", "C", 5]]},
            "row 0, column 1 (colour): expected one of 'red', 'green', 'blue', saw 'pink'",
            "#/features/0/1",
        ),
        ({"features": [[30, "red", "C", None]]}, "row 0, column 3 (income): expected 0 to 1e+06, saw None", None),
        ({"features": [["30", "red", "C", 5]]}, "row 0, column 0 (age): expected 0 to 120, or null, saw '30'", None),
        ({"features": [[True, "red", "C", 5]]}, "row 0, column 0 (age): expected 0 to 120, or null, saw True", None),
        ({"features": [[30, "red", "C", 5], [1]]}, "row 1: expected 4 columns, saw 1", "#/features/1"),
        ({"features": [[30, "red", 1, 5]]}, "column 2 (port): expected one of 'C', 'Q', or null, saw 1", None),
        (
            {"rows": [{"age": 300, "colour": "red", "income": 5}]},
            "row 0, age: expected 0 to 120, or null, saw 300",
            None,
        ),
        (
            {"rows": [{"age": True, "colour": "red", "income": 5}]},
            "row 0, age: expected 0 to 120, or null, saw T",
            None,
        ),
        ({"rows": [{"colour": ["red"], "income": 5}]}, "row 0, colour: expected one of 'red', 'green', 'blue'", None),
        (
            {"rows": [{"age": 30, "color": "red", "income": 5}]},
            "no feature `color`; did you mean `colour`?",
            "#/rows/0/color",
        ),
        ({"rows": [{"age": 30, "colour": "red"}]}, "row 0: `income` is missing; expected 0 to 1e+06", "#/rows/0"),
        ({"rows": []}, "rows: expected 1 to 4 rows, saw 0", "#/rows"),
        ({"rows": [{}] * 5}, "rows: expected 1 to 4 rows, saw 5", None),
        ({"rows": {"age": 30}}, "rows: expected 1 to 4 rows, saw {'age': 30}", None),
        ({"rows": [[30]]}, "row 0: expected names with values, saw [30]", "#/rows/0"),
        ({"rows": [{}], "features": [[1]]}, "features: send either `rows` or `features`", "#/features"),
        ({"rows": [{}], "model": "v2"}, "model: unknown field; remove it", "#/model"),
    ],
)
def test_a_refusal_lists_the_accepted_values(body: object, detail: str, pointer: str | None) -> None:
    """The location is a column in a list and a name in a named row."""
    problem = refused(json.dumps(body).encode(), MIXED_PARSER)
    assert (problem.status, detail in problem.detail) == (HTTPStatus.UNPROCESSABLE_ENTITY, True), problem.detail
    assert pointer in (None, problem.pointer)


@pytest.mark.parametrize(
    ("body", "words", "pointer"),
    [
        (
            b'{"rows": [{"age": 1}, {"age": NaN, "colour": "red"}]}',
            "row 1, age: expected a finite number, saw nan",
            "#/rows/1/age",
        ),
        (b'{"rows": [{"age": 1e400}]}', "row 0, age: expected a finite number, saw inf", "#/rows/0/age"),
        (b'{"rows": [{"age": [-Infinity]}]}', "rows: expected finite numbers", "#/rows"),
        (b'{"rows": NaN}', "rows: expected finite numbers", "#/rows"),
    ],
)
def test_a_nan_is_refused_with_advice_to_write_null(body: bytes, words: str, pointer: str) -> None:
    """Python and pandas write NaN into JSON, which other readers do not accept."""
    problem = refused(body, MIXED_PARSER)
    assert (problem.status, problem.pointer) == (HTTPStatus.UNPROCESSABLE_ENTITY, pointer)
    assert problem.detail == f"{words}; write null for a missing value"


WIDER = Schema(
    features=(*SCHEMA.features, Feature(name="rooms", minimum=0, maximum=99), Feature(name="port", categories=("C",))),
    answer=SCHEMA.answer,
    defaults={"rooms": 3, "port": "C"},
)
WITHOUT_WORDS = WIDER.model_copy(update={"features": WIDER.features[:4], "defaults": {"rooms": 3}})


@pytest.mark.parametrize(
    ("schema", "row", "filled"),
    [
        (WIDER, GOOD_ROW, [*GOOD_ROW, 3, 0]),
        (WIDER, [*GOOD_ROW, 5], [*GOOD_ROW, 5, 0]),
        (WITHOUT_WORDS, GOOD_ROW, [*GOOD_ROW, 3]),
    ],
)
def test_values_that_old_callers_do_not_send_are_filled_in(
    schema: Schema, row: list[float], filled: list[float]
) -> None:
    """In lists these are the last columns, in named rows any. The log then needs the filled row, not the body."""
    parser = BodyParser(schema)
    whole = schema.values(filled)
    rows, is_listed = parser.rows(orjson.dumps({"features": [row, whole]}))
    assert (rows.tolist(), is_listed) == ([filled, filled], False)
    asked = {feature.name: value for feature, value in zip(schema.features, row, strict=False)}
    assert parser.rows(orjson.dumps({"rows": [asked]}))[0].tolist() == [filled]
    assert parser.rows(orjson.dumps({"features": [whole]}))[1]


def test_too_few_columns_are_refused_even_with_defaults() -> None:
    """The message gives both limits, and a default does not bypass the bounds."""
    parser = BodyParser(WIDER)
    assert refused(b'{"features": [[1, 0]]}', parser).detail == "row 0: expected 3 to 5 columns, saw 2"
    assert refused(b'{"rows": [{"age": 1}]}', parser).detail.startswith("row 0: `change` is missing")
    assert refused(b'{"features": [[300, 0, 1]]}', parser).pointer == "#/features/0/0"


@pytest.mark.parametrize("known", ['"features":[[30,0.5,1000]]', '"request_id":"a","labels":["yes"]'])
def test_a_body_full_of_unknown_fields_is_refused_for_the_first_one(known: str) -> None:
    """One message for each took 400 MB for a body of 4 MB, and delayed all other requests for seconds."""
    unknown = ",".join(f'"{number}":1' for number in range(100_000))
    body = f"{{{known},{unknown}}}".encode()
    read = PARSER.rows if "features" in known else PARSER.feedback
    with at_most(megabytes=30), pytest.raises(Problem) as refused:
        read(body)
    assert (refused.value.detail, refused.value.pointer) == ("0: unknown field; remove it", "#/0")


def test_the_name_of_an_unknown_field_is_shortened() -> None:
    with pytest.raises(Problem) as refused:
        PARSER.feedback(json.dumps({"request_id": "a", "labels": ["yes"], "x" * 10_000: 1}).encode())
    assert len(refused.value.body("id")) < 500
