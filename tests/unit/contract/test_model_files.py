"""A model's files: unknown fields are errors, except for a reader of files that another version wrote."""

from pathlib import Path

import orjson
import pytest
from pydantic import ValidationError

from contract.answer_types import Labels
from contract.model_files import GOLDEN_FILE, SCHEMA_FILE, Feature, Golden, Schema
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


def test_lines_of_a_newer_version_are_read_likewise(tmp_path: Path) -> None:
    """The same rule for files of JSON lines, down to the fields of an answer."""
    (tmp_path / GOLDEN_FILE).write_text('{"features": [[1]], "predictions": [{"label": "no", "reason": "old"}]}\n')
    with pytest.raises(ValidationError, match="reason"):
        read_lines(tmp_path / GOLDEN_FILE, Golden)
    (golden,) = read_lines(tmp_path / GOLDEN_FILE, Golden, unknown="ignore")
    assert (golden.features, golden.predictions[0].label) == (((1.0,),), "no")


def test_features_are_found_by_how_they_are_logged() -> None:
    """Their indices are in column order."""
    found = [SCHEMA.logged_as(how) for how in ("plain", "hashed", "never")]
    assert found == [[0, 3], [1], [2]]
