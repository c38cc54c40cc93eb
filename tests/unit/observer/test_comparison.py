"""Two answers are compared without knowing what they mean."""

import gzip
import json
import sys
from typing import Any

import pytest

from contract.expressions import field_path
from observer.answers import LARGEST_BYTES, Answer, Reader
from observer.comparison import differences


def answer(content: Any, *, status: int = 200, media_type: str = "application/json", encoding: str = "") -> Answer:
    """An answer with this content: bytes as they are, anything else as JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    reader = Reader(status, media_type, encoding)
    for at in range(0, len(body), 1_000_000):
        reader.add(body[at : at + 1_000_000])
    return reader.answer()


def differing(one: Any, other: Any) -> set[str]:
    return set(differences(answer(one), answer(other)))


@pytest.mark.parametrize(
    ("one", "other", "fields"),
    [
        ({"label": "a"}, {"label": "a"}, set()),
        ({"label": "a"}, {"label": "b"}, {"label"}),
        ({"a": {"b": [{"c": 1}, {"c": 2}]}}, {"a": {"b": [{"c": 1}, {"c": 3}]}}, {"a.b[].c"}),
        ({"a": 1}, {"a": 1, "b": 2}, {"(keys)"}),
        ({"a": {"x": 1}}, {"a": {}}, {"a.(keys)"}),
        ({"a": [1, 2]}, {"a": [1]}, {"a[]"}),
        ({"a": 1}, {"a": "1"}, {"a"}),
        ({"a": 1}, {"a": True}, {"a"}),
        ({"a": None}, {"a": 0}, {"a"}),
        ({"a": 12}, {"a": 13}, {"a"}),  # whole numbers are counts and ids
        ({"a": 12}, {"a": 12.0}, set()),
        ({"a": 1000.0}, {"a": 1040.0}, set()),
        ({"a": 1000.0}, {"a": 1060.0}, {"a"}),
        ({"a": 0.97}, {"a": 0.93}, set()),
        ({"a": 0.97}, {"a": 0.90}, {"a"}),
        ("spam", "ham", {"(body)"}),
        ([0.9, 0.1], [0.1, 0.9], {"[]"}),
    ],
)
def test_the_differing_fields_of_two_answers_are_found(one: Any, other: Any, fields: set[str]) -> None:
    assert differing(one, other) == fields


def test_long_lists_of_numbers_are_compared_as_vectors() -> None:
    """Their direction and length count, not each number."""
    vector = [0.001 * number for number in range(100)]
    nudged = [number + (0.002 if index == 3 else 0.0) for index, number in enumerate(vector)]
    assert differing({"v": vector}, {"v": nudged}) == set()
    assert differing({"v": vector}, {"v": vector[::-1]}) == {"v[]"}
    assert differing({"v": vector}, {"v": [2 * number for number in vector]}) == {"v[]"}
    assert differing({"v": vector}, {"v": [0.0] * 100}) == {"v[]"}


def test_lists_of_whole_numbers_are_not_vectors() -> None:
    """They may be the tokens of a text: one other token makes another text."""
    assert differing({"t": [1000] * 20}, {"t": [1000] * 19 + [1001]}) == {"t[]"}


def test_nan_and_huge_numbers_are_compared() -> None:
    """Python writes NaN into JSON, although JSON does not allow it."""
    assert differing({"a": float("nan")}, {"a": float("nan")}) == set()
    assert differing({"a": float("nan")}, {"a": 0.5}) == {"a"}
    vector = [float("nan"), *[0.5] * 20]
    assert differing({"v": vector}, {"v": vector}) == set()
    assert differing({"v": vector}, {"v": [0.5] * 21}) == {"v[]"}
    assert differing({"v": [1e300] * 20}, {"v": [1e300] * 19 + [-1e300]}) == {"v[]"}


def test_numbers_too_large_for_a_float_are_compared() -> None:
    assert differing({"a": 10**400}, {"a": 0.5}) == {"(body)"}
    assert differing({"v": [10**400, 0.5] * 8}, {"v": [10**400, 0.5] * 8, "b": 1}) == {"(body)"}


def test_an_object_with_many_keys_is_one_field() -> None:
    """An object with a key for each word is data: its keys are neither stored nor named."""
    one = {f"word-{number}": 1 for number in range(100)}
    assert differing({"words": one}, {"words": one | {"word-7": 2}}) == {"words.*"}


def test_nested_answers_are_compared() -> None:
    one: Any = 1
    other: Any = 2
    for _ in range(200):
        one, other = [one], [other]
    assert len(differing(one, other)) == 1


def test_answers_nested_as_deeply_as_python_reads_are_compared() -> None:
    """At some depths Python can read both answers but not compare them."""
    limit = sys.getrecursionlimit()
    for depth in range(limit - 150, limit):
        one, other = (answer(b"[" * depth + text + b"]" * depth) for text in (b"1", b"2"))
        assert len(differences(one, other, ignored=(field_path("a.b"),))) == 1


def test_only_the_class_of_a_status_is_compared() -> None:
    ok, refused = answer({"id": 1}), answer({"id": 2}, status=400)
    assert differences(ok, refused) == {"(status)"}
    assert differences(refused, answer({"id": 3}, status=422)) == set()


@pytest.mark.parametrize("media_type", ["image/png", "text/plain", "", "application/json"])
def test_answers_that_are_not_json_are_compared_as_a_whole(media_type: str) -> None:
    one, other = (answer(body, media_type=media_type) for body in (b"\x89PNG 1", b"\x89PNG 2"))
    assert differences(one, one) == set()
    assert differences(one, other) == {"(body)"}


def test_compressed_answers_are_decompressed() -> None:
    """The same content may be compressed differently at another time, or not at all."""
    content = json.dumps({"a": 1}).encode()
    packed = (answer(gzip.compress(content, mtime=time), encoding="gzip") for time in (1, 2))
    one, other = packed
    assert one.body != other.body
    assert differences(one, other) == differences(one, answer(content)) == set()
    assert differences(one, answer(b"no gzip", encoding="gzip")) == {"(body)"}


def test_a_small_answer_that_expands_to_a_huge_one_is_not_decompressed() -> None:
    bomb = gzip.compress(b" " * (4 * LARGEST_BYTES), mtime=1)
    one, other = answer(bomb, encoding="gzip"), answer(bomb[:-1] + b"x", encoding="gzip")
    assert differences(one, other) == {"(body)"}


def test_large_answers_are_compared_but_not_kept() -> None:
    large = b"x" * (LARGEST_BYTES + 1)
    one, same, other = answer(large), answer(large), answer(large[:-1] + b"y")
    assert (one.body, one.size) == (None, 0)
    assert differences(one, same) == set()
    assert differences(one, other) == {"(body)"}


def test_ignored_fields_do_not_differ() -> None:
    """This also holds if only one of the answers has them."""
    ignored = tuple(map(field_path, ("took_ms", "items[].id")))
    one, other = (
        {"took_ms": 1, "items": [{"id": 1, "x": 2}], "label": "a"},
        {"items": [{"id": 2, "x": 2}], "label": "b"},
    )
    assert differences(answer(one), answer(other), ignored=ignored) == {"label"}
    assert differences(answer(b"\x00"), answer(b"\x01"), ignored=ignored) == {"(body)"}
