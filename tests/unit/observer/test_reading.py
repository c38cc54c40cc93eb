"""What the expressions of a plan find in answers, and how it is counted."""

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from contract.own_answers import LONGEST_LABEL, MOST_CLASSES, NOTHING, OTHER, OwnAnswers
from observer.answers import Answer, Reader
from observer.predictions import NUMBERS_FOR_BINS, Predictions
from observer.reading import LARGEST_READ, Readers, Said, is_right

ROUTES = {
    "/label": {"label": "out.label", "confidence": "out.p"},
    "/price": {"number": "price"},
    "/sure": {"confidence": "p", "ignore": ["id"]},
}


def answer(content: Any, *, status: int = 200, media_type: str = "application/json") -> Answer:
    """An answer with this content: bytes as they are, anything else as JSON."""
    reader = Reader(status, media_type, "")
    reader.add(content if isinstance(content, bytes) else json.dumps(content).encode())
    return reader.answer()


def said(
    content: Any, *, route: str = "/label", status: int = 200, media_type: str = "application/json"
) -> Said | None:
    reader = Readers(OwnAnswers.model_validate(ROUTES)).of(route)
    assert reader is not None
    return reader.said(answer(content, status=status, media_type=media_type))


@pytest.mark.parametrize(
    ("label", "read"),
    [
        ("spam", "spam"),
        (7, "7"),
        (True, "true"),
        ("", None),
        (None, None),
        (["spam"], None),
        ({"is": "spam"}, None),
        (0.5, None),  # a number with a fraction is not a class
        ("x" * LONGEST_LABEL, "x" * LONGEST_LABEL),
        ("x" * 4000, None),
        (10**4000, None),
    ],
)
def test_a_label_is_a_short_text_or_a_whole_number(label: Any, read: str | None) -> None:
    text = json.dumps({"out": {"label": label}}) if not isinstance(label, int) else None
    content = (
        text.encode()
        if text
        else b'{"out": {"label": %s}}' % (b"1" + b"0" * 4000 if label == 10**4000 else str(label).lower().encode())
    )
    assert said(content) == Said(label=read)


@pytest.mark.parametrize(
    ("confidence", "read"),
    [
        (0.5, 0.5),
        (0, 0.0),
        (1, 1.0),
        (1.01, None),
        (-0.1, None),
        (float("nan"), None),
        ("0.5", None),
        (True, None),
        ([1], None),
    ],
)
def test_a_confidence_lies_between_0_and_1(confidence: Any, read: float | None) -> None:
    assert said({"out": {"label": "a", "p": confidence}}) == Said("a", read)


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"no json", "application/json"),
        (b'{"out": {"label": "a"}', "application/json"),
        (b'{"out": {"label": "a"}}', "image/png"),
        (b'{"out": {"label": "a", "more": "' + b"x" * 5_000_000 + b'"}}', "application/json"),
        (b'{"out": {"label": "a", "more": "' + b"x" * LARGEST_READ + b'"}}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"", "application/json"),
    ],
    ids=["text", "cut", "picture", "5 MB", "large", "deep", "empty"],
)
def test_an_unreadable_answer_has_no_values(content: bytes, media_type: str) -> None:
    """It is still counted: a version that sends such answers has changed."""
    assert said(content, media_type=media_type) == Said()


def test_an_error_is_not_an_answer() -> None:
    assert said({"out": {"label": "a"}}, status=500) is None
    assert said({"out": {"label": "a"}}, status=422) is None


def test_a_number_must_be_finite() -> None:
    assert said({"price": 3}, route="/price") == Said(3.0)
    assert said({"price": "3"}, route="/price") == Said()
    assert said(b'{"price": NaN}', route="/price") == Said()
    assert said(b'{"price": 1' + b"0" * 400 + b"}", route="/price") == Said()


def counted(registry: CollectorRegistry, series: str = "kanaria_predictions_total") -> dict[tuple[str, str], int]:
    """The samples of a series by version and class, or by version and bucket."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    samples = [sample for family in families for sample in family.samples if sample.name == series]
    return {
        (each.labels["version"], each.labels.get("label", each.labels.get("le", ""))): int(each.value)
        for each in samples
    }


def count(*each: tuple[str, Said], route: str = "/label", names_route: bool = False) -> CollectorRegistry:
    registry = CollectorRegistry()
    predictions = Predictions(registry)
    for version, one in each:
        predictions.count(version, route, one, names_route=names_route)
    return registry


def test_classes_are_counted_by_version() -> None:
    found = counted(count(("m:v1", Said("a", 0.4)), ("m:v1", Said("a")), ("m:v2", Said("b")), ("m:v2", Said())))
    assert found == {("m:v1", "a"): 2, ("m:v2", "b"): 1, ("m:v2", NOTHING): 1}


def test_confidences_are_counted_in_buckets() -> None:
    found = counted(count(("m:v1", Said("a", 0.4)), ("m:v1", Said("a", 0.97))), "kanaria_confidence_bucket")
    assert [found["m:v1", bound] for bound in ("0.3", "0.4", "0.95", "+Inf")] == [0, 1, 1, 2]


def test_without_a_label_or_number_no_class_is_counted() -> None:
    """The plan names only a confidence."""
    one = said({"p": 0.5}, route="/sure")
    assert one == Said(None, 0.5, has_class=False)
    registry = count(("m:v1", one))
    assert counted(registry) == {}
    assert counted(registry, "kanaria_confidence_count") == {("m:v1", ""): 1}


def test_classes_beyond_the_limit_are_merged_for_both_versions() -> None:
    each = [(version, Said(f"label {number}")) for number in range(1000) for version in ("m:v1", "m:v2")]
    found = counted(count(*each))
    assert len(found) == 2 * (MOST_CLASSES + 1)
    assert found["m:v1", OTHER] == found["m:v2", OTHER] == 1000 - MOST_CLASSES


def test_a_label_with_control_characters_is_escaped() -> None:
    assert counted(count(("m:v1", Said("a\n\x1b\u2028b")))) == {("m:v1", r"a\n\x1b\u2028b"): 1}


def test_a_class_names_its_route_if_several_routes_have_classes() -> None:
    assert counted(count(("m:v1", Said("a")), route="/two", names_route=True)) == {("m:v1", "/two a"): 1}
    assert Readers(OwnAnswers.model_validate(ROUTES)).are_several
    assert not Readers(OwnAnswers.model_validate({"/label": ROUTES["/label"], "/sure": ROUTES["/sure"]})).are_several


def test_numbers_are_counted_in_the_same_bins_for_both_versions() -> None:
    """Numbers that arrive before the bins are known are not lost."""
    numbers = [Said(float(number % 100)) for number in range(NUMBERS_FOR_BINS)]
    assert counted(count(*(("m:v1", one) for one in numbers[:-1]), route="/price")) == {}
    found = counted(count(*(("m:v1", one) for one in numbers), ("m:v2", Said(55.0)), route="/price"))
    assert sum(events for (version, _), events in found.items() if version == "m:v1") == NUMBERS_FOR_BINS
    (canary,) = (name for version, name in found if version == "m:v2")
    assert ("m:v1", canary) in found


def test_old_versions_are_forgotten() -> None:
    found = counted(count(*((f"m:v{number}", Said("a", 0.5)) for number in range(100))))
    assert len(found) == 8


def row(body: bytes, **columns: dict[str, str]) -> tuple[Any, ...]:
    reader = Readers(OwnAnswers.model_validate({"/a": {"label": "x", **columns}, "/b": {"features": {"z": "z"}}})).of(
        "/a"
    )
    assert reader is not None
    return reader.row(answer(body))


def test_a_row_has_the_columns_of_all_routes() -> None:
    """Numbers come first, then texts. A value that is missing, too long or of another type is None and no error."""
    features, words = {"age": "person.age", "is_new": "new"}, {"country": "country"}
    body = {"person": {"age": 41}, "new": True, "country": "jp", "z": 3, "name": "private"}
    assert row(json.dumps(body).encode(), features=features, words=words) == (41.0, 1.0, None, "jp")
    odd: dict[str, Any] = {"person": [], "new": "yes", "country": "x" * 500}
    assert row(json.dumps(odd).encode(), features=features, words=words) == (None,) * 4
    for body_ in (b"", b"no json", b"[" * 5000, b'{"new": NaN}'):
        assert row(body_, features=features, words=words) == (None,) * 4
    assert row(json.dumps(body).encode()) == (None,)


@pytest.mark.parametrize(
    ("said_", "true", "right"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("3", 3, True),
        ("", "", False),
        (100.0, 104, True),
        (100.0, 106, False),
        (1.0, "1", False),
    ],
)
def test_an_answer_is_right_if_it_matches_the_true_value(said_: object, true: object, right: bool) -> None:
    assert is_right(said_, true) is right
