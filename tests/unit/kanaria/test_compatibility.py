"""Whether stable's callers can use the canary: differences that break them are errors, additions are remarks."""

import json
from pathlib import Path
from typing import Any

import pytest

from kanaria.errors import SetupError
from kanaria.stack.compatibility import Interface, differences, remarks
from tests.support.peak import at_most

FEATURES = [{"name": "age", "minimum": 0, "maximum": 120}, {"name": "weight", "minimum": 0.5, "maximum": 300}]
FILL = "put new columns at the end and give them values in `defaults` of its schema for today's callers"
DO = "keep stable's columns in its schema: `preprocess` of its class may drop or derive columns"
ANSWER = {"label": "yes", "confidence": 0.9}


def interface(
    folder: Path,
    features: list[dict[str, Any]] = FEATURES,
    labels: tuple[str, ...] = ("no", "yes"),
    max_rows: int = 100,
    answer: dict[str, Any] = ANSWER,
    **more: object,
) -> Interface:
    folder.mkdir(exist_ok=True)
    schema = {"features": features, "answer": {"kind": "label", "labels": labels}, "max_rows": max_rows, **more}
    (folder / "schema.json").write_text(json.dumps(schema))
    (folder / "golden.jsonl").write_text(json.dumps({"features": [[1, 2]], "predictions": [answer]}) + "\n")
    return Interface.read(folder)


@pytest.fixture
def stable(tmp_path: Path) -> Interface:
    return interface(tmp_path / "stable")


@pytest.mark.parametrize(
    ("canary", "difference"),
    [
        ({"features": FEATURES[:1]}, "other features: without `weight`; 1 columns; stable has 2; " + DO),
        (
            {"features": [*FEATURES, {"name": "height", "minimum": 0, "maximum": 3}]},
            "other features: with `height`; 3 columns; stable has 2; " + FILL,
        ),
        (
            {"features": [FEATURES[0], FEATURES[1] | {"name": "mass"}]},
            "other features: without `weight` and with `mass`; 2 columns; stable has 2; " + DO,
        ),
        (
            {"features": FEATURES[::-1]},
            "other features: in another order, column 0 is `weight`; on stable it is `age`",
        ),
        (
            {"features": [FEATURES[0] | {"maximum": 99}, FEATURES[1]]},
            "feature `age` accepts 0 to 99, stable 0 to 120",
        ),
        ({"max_rows": 10}, "it accepts at most 10 rows in a request, stable 100"),
        ({"labels": ("yes",)}, "it can never answer 'no'"),
        ({"answer": {"label": "yes"}}, "its answers lack `confidence`"),
        ({"answer": {"label": 1, "confidence": 0.9}}, "`label` of its answers is a number; on stable it is text"),
    ],
    ids=["fewer", "more", "renamed", "reordered", "narrower", "fewer rows", "no label", "no field", "another kind"],
)
def test_what_would_break_a_caller_is_shown(
    stable: Interface, tmp_path: Path, canary: dict[str, Any], difference: str
) -> None:
    """Each difference is found on its own."""
    assert differences(interface(tmp_path / "canary", **canary), stable) == (difference,)


SEX = {"name": "sex", "categories": ["female", "male", "other"]}
MISSING = FEATURES[0] | {"may_be_missing": True}


@pytest.mark.parametrize(
    ("mine", "theirs", "difference"),
    [
        (FEATURES[0], MISSING, "feature `age` may not be missing; on stable it may"),
        (SEX | {"categories": ["male", "female"]}, SEX, "feature `sex` does not accept `other`, which stable accepts"),
        ({"name": "sex", "minimum": 0, "maximum": 2}, SEX, "feature `sex` accepts numbers; stable accepts categories"),
    ],
    ids=["not missing", "fewer categories", "another kind"],
)
def test_values_that_the_canary_refuses_are_shown(
    tmp_path: Path, mine: dict[str, Any], theirs: dict[str, Any], difference: str
) -> None:
    """Each value is named."""
    canary, stable = interface(tmp_path / "canary", [mine]), interface(tmp_path / "stable", [theirs])
    assert (differences(canary, stable), differences(stable, stable)) == ((difference,), ())


HEIGHT = {"name": "height", "minimum": 0, "maximum": 3}


def test_a_new_column_with_a_default_breaks_no_caller(stable: Interface, tmp_path: Path) -> None:
    """It is the last column, so lists may omit it. A remark names the default."""
    canary = interface(tmp_path / "canary", [*FEATURES, HEIGHT], defaults={"height": 1.7})
    assert (differences(canary, stable), remarks(canary, stable)) == (
        (),
        ("fills requests of stable's callers: `height` with 1.7",),
    )
    (difference,) = differences(stable, canary)
    assert difference == f"other features: without `height`; 2 columns; stable has 3; {DO}"
    first = interface(tmp_path / "first", [HEIGHT, *FEATURES], defaults={"height": 1.7})
    assert differences(first, stable) == (f"other features: with `height`; 3 columns; stable has 2; {FILL}",)
    strict = interface(tmp_path / "strict", [*FEATURES, HEIGHT])
    assert differences(strict, canary) == (
        "its schema has no `defaults` for `height`, which stable's callers may leave out",
    )


def test_more_accepted_values_break_no_caller(tmp_path: Path) -> None:
    """The canary has more categories in another order, and accepts a missing value."""
    stable = interface(tmp_path / "stable", [SEX, FEATURES[0]])
    wider = SEX | {"categories": ["more", "other", "male", "female"]}
    assert differences(interface(tmp_path / "canary", [wider, MISSING]), stable) == ()


def test_a_more_permissive_canary_breaks_no_caller(stable: Interface, tmp_path: Path) -> None:
    """It accepts more and has a new label and a new field, which are remarks."""
    canary = interface(
        tmp_path / "canary",
        features=[FEATURES[0] | {"maximum": 130}, FEATURES[1]],
        labels=("no", "yes", "perhaps"),
        max_rows=1000,
        answer=ANSWER | {"reason": "old"},
    )
    assert (differences(canary, stable), remarks(canary, stable)) == (
        (),
        ("new labels: perhaps", "new fields in each answer: reason"),
    )


def test_another_model_is_one_sentence_and_one_advice(tmp_path: Path) -> None:
    """The message listed every feature that either model lacks, and the labels of the other model."""
    images = [{"name": f"pixel_{number}", "minimum": 0, "maximum": 16} for number in range(64)]
    stable = interface(tmp_path / "stable", features=images, labels=tuple("0123456789"))
    (difference,) = differences(interface(tmp_path / "canary"), stable)
    assert difference == (
        "it is a different model: it has none of stable's 64 features; serve it as a separate stack, with its own "
        "ports and state folder (`kanaria --home FOLDER up TAG`)"
    )


def test_a_model_that_shares_a_few_names_is_still_another_model(tmp_path: Path) -> None:
    """Two tables about people both have an age."""
    table = [{"name": name, "minimum": 0, "maximum": 9} for name in ("age", "fare", "port")]
    (difference,) = differences(interface(tmp_path / "canary"), interface(tmp_path / "stable", table, ("died",)))
    assert difference.startswith(
        "it is a different model: it has 1 of stable's 3 features; serve it as a separate stack"
    )


def test_a_long_list_of_names_is_shortened(tmp_path: Path) -> None:
    """A few names are shown, and the number of the others."""
    images = [{"name": f"pixel_{number}", "minimum": 0, "maximum": 16} for number in range(64)]
    stable = interface(tmp_path / "stable", features=images, labels=tuple("0123456789"))
    features, labels = differences(interface(tmp_path / "canary", features=images[32:], labels=("0",)), stable)
    assert (
        "without `pixel_0`, `pixel_1`, `pixel_2`, `pixel_3`, `pixel_4` and 27 more; 32 columns; stable has" in features
    )
    assert labels == "it can never answer '1', '2', '3', '4', '5' and 4 more labels"


def test_every_difference_is_reported_at_once(stable: Interface, tmp_path: Path) -> None:
    """One build gets one complete list."""
    canary = interface(tmp_path / "canary", max_rows=1, labels=("yes",), answer={"label": "yes"})
    assert len(differences(canary, stable)) == 3


@pytest.mark.parametrize("name", ["schema.json", "golden.jsonl"])
def test_no_file_is_read_through_a_link(name: str, stable: Interface, tmp_path: Path) -> None:
    """Errors in it appear on pages that everybody may read."""
    (tmp_path / "secret").write_text('{"features": "abc-secret"}')
    (tmp_path / "stable" / name).unlink()
    (tmp_path / "stable" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(SetupError, match="it is a link"):
        Interface.read(tmp_path / "stable")


def test_a_model_without_its_files_is_reported(tmp_path: Path) -> None:
    """The error says which file is missing and where."""
    with pytest.raises(SetupError, match=r"schema\.json"):
        Interface.read(tmp_path)


MANY = 100_001
HOSTILE = {
    "malformed features": ("schema.json", '{"features":[' + "1," * MANY + "1]}"),
    "malformed labels": ("schema.json", '{"answer":{"kind":"label","labels":[' + "1," * MANY + "1]}}"),
    "malformed edges": ("schema.json", '{"answer":{"kind":"number","edges":[' + '"a",' * MANY + '"a"]}}'),
    "malformed defaults": ("schema.json", json.dumps({"defaults": {str(n): [] for n in range(MANY)}})),
    "malformed answers": ("golden.jsonl", '{"features":[],"predictions":[' + "1," * MANY + "1]}"),
    "endless lists": ("golden.jsonl", '{"predictions":[],"features":[' + "[]," * 2**20 + "[]]}"),
    "endless lines": ("golden.jsonl", '{"features":[],"predictions":[]}\n' * 4 * MANY),
}


@pytest.mark.parametrize(("name", "content"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_model_does_not_exhaust_the_readers_memory(
    name: str, content: str, stable: Interface, tmp_path: Path
) -> None:
    """The controller reads model files: eight megabytes once took four gigabytes of memory."""
    (tmp_path / "stable" / name).write_text(content)
    del content
    with at_most(megabytes=60), pytest.raises(SetupError, match="does not keep the contract"):
        Interface.read(tmp_path / "stable")


def test_reading_many_categories_takes_linear_time(tmp_path: Path) -> None:
    """Each category was compared with every other, so the control loop, which reads schemas, stopped for an hour."""
    many = [str(number) for number in range(300_000)]
    found = interface(tmp_path / "canary", features=[{"name": "a", "categories": many}])
    assert differences(found, found) == ()
    with pytest.raises(SetupError, match="category twice"):
        interface(tmp_path / "canary", features=[{"name": "a", "categories": [*many, "0"]}])
