"""Finds fields of one answer that another answer lacks or has with another type: this breaks callers.

Paths are those of `comparison`. `null` matches every type. The keys of an object with many keys are data.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from observer.answers import Opaque
from observer.comparison import BODY, DEEPEST, LONGEST_PATH, MANY_KEYS

_MOST_ITEMS = 50  # items of a list that are checked
_TYPES: Mapping[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    Opaque: "no JSON",
}


class Changed(NamedTuple):
    """The type of a field in one answer and in the other; empty: the field is absent."""

    was: str
    is_now: str


def lost(one: Any, other: Any) -> dict[str, Changed]:
    """The fields of `one` that `other` lacks or has with another type, by path."""
    return dict(_lost(one, other, "", 0))


def _lost(one: Any, other: Any, path: str, depth: int) -> Iterator[tuple[str, Changed]]:
    if one is None or other is None or depth > DEEPEST:
        return
    was, is_now = _TYPES[type(one)], _TYPES[type(other)]
    if was != is_now:
        yield path[:LONGEST_PATH] or BODY, Changed(was, is_now)
    elif isinstance(one, dict) and max(len(one), len(other)) <= MANY_KEYS:
        for key, value in one.items():
            below = f"{path}.{key}" if path else key
            if key in other:
                yield from _lost(value, other[key], below, depth + 1)
            else:
                yield below[:LONGEST_PATH], Changed(_TYPES.get(type(value), "nothing"), "")
    elif isinstance(one, list):
        for item, its_other in zip(one[:_MOST_ITEMS], other, strict=False):
            yield from _lost(item, its_other, f"{path}[]", depth + 1)
