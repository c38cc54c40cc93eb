"""The file names of the prediction log, and the time of a line without parsing the line."""

from contract.prediction_log import BEFORE_TIME, LINE, Columns, began_s, segment_name, version_folder


def test_a_segment_is_named_by_its_start_time() -> None:
    """The name has milliseconds. The name of any other file gives no time."""
    name = segment_name(1_700_000_000.25, 4711)
    assert (name, began_s(name), began_s("notes.jsonl")) == ("1700000000250-4711.jsonl", 1_700_000_000.25, None)


def test_a_line_starts_with_its_time() -> None:
    """The text before and after the time is fixed, whatever the request and the answer are."""
    line = LINE % (1_700_000_000.125, b"{}", b"[]")
    assert line == b'{"at_s":1700000000.125,"request":{},"answer":[]}\n'
    assert line.removeprefix(BEFORE_TIME).partition(b",")[0] == b"1700000000.125"


def test_a_tag_becomes_the_name_of_one_folder() -> None:
    """The name holds neither a path separator nor a colon."""
    assert version_folder("team/digits:v1") == "team_digits@v1"


def test_columns_of_a_newer_version_are_read() -> None:
    """Unknown fields are ignored."""
    text = '{"version": "m:1", "model": "m:1", "features": ["age"], "hashed": [], "never": ["sex"]}'
    assert Columns.model_validate_json(text).features == ("age",)
