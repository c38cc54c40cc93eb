"""A model's files: unknown fields are errors, except when the files were written by another version."""

from math import nan
from pathlib import Path

import orjson
import pytest
from pydantic import ValidationError

from contract.answer_types import Labels
from contract.model_files import GOLDEN_FILE, SCHEMA_FILE, Feature, Golden, Schema, Value
from contract.records import read_lines

SCHEMA = Schema(
    features=(
        Feature(name="age", minimum=0, maximum=120),
        Feature(name="postcode", minimum=0, maximum=99999, logged="hashed"),
        Feature(name="sex", minimum=1, maximum=2, logged="never"),
        Feature(name="weight", minimum=0, maximum=300),
    ),
    answer=Labels(labels=("no", "yes")),
)


def test_a_field_of_a_newer_version_is_ignored_only_on_request(tmp_path: Path) -> None:
    """A server and `kanaria validate` refuse unknown fields; a reader of another version's model ignores them."""
    newer = orjson.loads(SCHEMA.model_dump_json())
    newer["features"][0]["unit"] = "years"
    (tmp_path / SCHEMA_FILE).write_bytes(orjson.dumps(newer | {"more": 1}))
    with pytest.raises(ValidationError, match="unit"):
        Schema.read(tmp_path)
    assert Schema.read(tmp_path, unknown="ignore") == SCHEMA


def test_json_lines_of_a_newer_version_follow_the_same_rule(tmp_path: Path) -> None:
    """The rule also holds for the fields of an answer inside a line."""
    (tmp_path / GOLDEN_FILE).write_text('{"features": [[1]], "predictions": [{"label": "no", "reason": "old"}]}\n')
    with pytest.raises(ValidationError, match="reason"):
        read_lines(tmp_path / GOLDEN_FILE, Golden)
    (golden,) = read_lines(tmp_path / GOLDEN_FILE, Golden, unknown="ignore")
    assert (golden.features, golden.predictions[0].label) == (((1.0,),), "no")


def test_features_are_grouped_by_how_they_are_logged() -> None:
    """Their indices are in column order."""
    found = [SCHEMA.logged_as(how) for how in ("plain", "hashed", "never")]
    assert found == [[0, 3], [1], [2]]


SEX = Feature(name="sex", categories=("female", "male"))


@pytest.mark.parametrize(
    ("feature", "values", "numbers"),
    [
        (SEX, ("female", "male"), (0, 1)),
        (SEX.model_copy(update={"may_be_missing": True}), ("male", None), (1, nan)),
        (Feature(name="age", minimum=0, maximum=120, may_be_missing=True), (30, None, nan), (30, nan, nan)),
    ],
)
def test_a_model_gets_its_features_as_numbers(
    feature: Feature, values: tuple[Value, ...], numbers: tuple[float, ...]
) -> None:
    """A category becomes its position and a missing value NaN, as in pandas. The conversion back gives the values."""
    found = [feature.number(value) for value in values]
    assert found == pytest.approx(list(numbers), nan_ok=True)
    assert [feature.value(number) for number in found[:2]] == list(values[:2])


@pytest.mark.parametrize("value", [None, "other", 1, True, nan])
def test_a_value_that_is_not_a_category_is_refused(value: Value) -> None:
    """The message lists the categories."""
    with pytest.raises(ValueError, match=r"^expected one of 'female', 'male'$"):
        SEX.number(value)


def test_a_refused_row_names_the_feature() -> None:
    """The message helps people who train a model, not only callers of the service."""
    schema = Schema(features=(SEX,), answer=Labels(labels=("no",)))
    with pytest.raises(ValueError, match="sex: expected one of 'female', 'male', saw 'man'"):
        schema.numbers(["man"])
    with pytest.raises(ValueError, match="expected 1 columns, saw 2"):
        schema.numbers(["male", 3])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "'x' needs `minimum` and `maximum`, or `categories`"),
        ({"minimum": 0}, "needs `minimum` and `maximum`"),
        ({"categories": ["a", "b", "a"]}, "'x' has a category twice: a"),
        ({"categories": ["a", "b"], "maximum": 9}, "'x' has categories; leave `minimum` and `maximum` out"),
        (
            {"categories": ["(missing)", "b"], "may_be_missing": True},
            r"'x': no category may be called '\(missing\)', as a missing value is",
        ),
    ],
)
def test_a_feature_that_contradicts_itself_is_refused(given: dict[str, object], words: str) -> None:
    """The message says what to write."""
    with pytest.raises(ValidationError, match=words):
        Feature.model_validate({"name": "x", **given})


@pytest.mark.parametrize(
    ("defaults", "words"),
    [
        ({"age": True}, "defaults: age: expected a number, a text or null, saw True"),
        ({"height": 1}, "there is no feature 'height'"),
        ({"sex": None}, "defaults: sex: expected one of .*, saw None"),
    ],
)
def test_a_default_must_be_a_valid_value_of_a_feature(defaults: dict[str, Value], words: str) -> None:
    """Otherwise the first request without that feature would fail."""
    with pytest.raises(ValidationError, match=words):
        Schema(features=(SEX, SCHEMA.features[0]), answer=Labels(labels=("no",)), defaults=defaults)


def test_only_the_last_columns_of_a_list_may_be_left_out() -> None:
    """A named row may leave out any feature that has a default or may be missing."""
    one, two, three = (Feature(name=name, minimum=0, maximum=9) for name in "abc")
    schema = Schema(features=(one, two, three), answer=SCHEMA.answer, defaults={"a": 1, "c": 3})
    assert (schema.least_columns, schema.absent) == (2, {"a": 1.0, "c": 3.0})
    assert SCHEMA.least_columns == 4


def test_a_schema_without_categories_has_only_the_older_fields(tmp_path: Path) -> None:
    """A Bento that an earlier version built refuses fields that it does not know."""
    SCHEMA.write(tmp_path)
    written = orjson.loads((tmp_path / SCHEMA_FILE).read_bytes())
    assert written.keys() == {"features", "answer", "max_rows"}
    assert {key for feature in written["features"] for key in feature} == {"name", "minimum", "maximum", "logged"}
    mixed = Schema(features=(SEX, SCHEMA.features[0]), answer=SCHEMA.answer)
    mixed.write(tmp_path)
    assert Schema.read(tmp_path) == mixed
