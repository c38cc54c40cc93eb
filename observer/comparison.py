"""Finds the fields in which two answers to one request differ, without knowing what the fields mean.

A field is named by its path, such as `scores[].label`: all items of a list are one field. It compares

* the class of the status; of unsuccessful answers nothing else;
* the keys of JSON objects, then the value of each key that both have;
* texts and whole numbers exactly, numbers with a fraction within a tolerance;
* lists item by item, long lists of numbers as vectors, by direction and length;
* everything that is not JSON by its hash.
"""

import math
from collections.abc import Iterator
from operator import mul
from typing import Any

from contract.expressions import FieldPath, without
from observer.answers import Answer, Opaque

STATUS, BODY = "(status)", "(body)"
KEYS = "(keys)"  # which keys an object has

TOLERANCE = 0.05  # numbers with a fraction count as the same if at most this far apart, relative to the larger one
SMALL = 1.0  # ... or absolute, if neither is larger than this, as with shares and probabilities
VECTOR = 8  # a list of at least this many numbers is a vector
SAME_DIRECTION = 0.999  # vectors are the same if the cosine of the angle between them is at least this
MANY_KEYS = 64  # an object with more keys is treated as a list: its keys are data
DEEPEST = 40
LONGEST_PATH = 200  # letters


def differences(one: Answer, other: Answer, *, ignored: tuple[FieldPath, ...] = ()) -> frozenset[str]:
    """The fields in which two answers differ, without the ignored ones; empty: they are the same."""
    if one.status // 100 != other.status // 100:
        return frozenset((STATUS,))
    if one.status // 100 != 2:
        return frozenset()
    if one.body is not None and one.body == other.body and one.encoding == other.encoding:
        return frozenset()
    content, its_content = (without(each.content(), ignored) for each in (one, other))
    try:
        return frozenset(_differing(content, its_content, "", 0))
    except OverflowError:  # whole numbers too large for a float
        return frozenset(() if content == its_content else (BODY,))
    except RecursionError:  # nested so deeply that Python can read it but not compare it
        return frozenset((BODY,))


def _differing(one: Any, other: Any, path: str, depth: int) -> Iterator[str]:
    field = path[:LONGEST_PATH] or BODY
    if depth > DEEPEST:
        if one != other:
            yield field
    elif isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            yield f"{path}.{KEYS}"[:LONGEST_PATH] if path else KEYS
        is_data = max(len(one), len(other)) > MANY_KEYS
        for key in one.keys() & other.keys():
            below = "*" if is_data else key
            yield from _differing(one[key], other[key], f"{path}.{below}" if path else below, depth + 1)
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"{path}[]"[:LONGEST_PATH]
        elif _is_vector(one) and _is_vector(other):
            if not _are_same_vectors(one, other):
                yield f"{path}[]"[:LONGEST_PATH]
        else:
            for each, its_other in zip(one, other, strict=True):
                yield from _differing(each, its_other, f"{path}[]", depth + 1)
    elif not _are_same(one, other):
        yield field


def _are_same(one: Any, other: Any) -> bool:
    if isinstance(one, Opaque) or isinstance(other, Opaque) or isinstance(one, bool) or isinstance(other, bool):
        return type(one) is type(other) and bool(one == other)
    are_numbers = isinstance(one, int | float) and isinstance(other, int | float)
    if are_numbers and (isinstance(one, float) or isinstance(other, float)):
        return are_near(float(one), float(other))
    return type(one) is type(other) and bool(one == other)


def are_near(one: float, other: float) -> bool:
    """Whether two numbers with a fraction are the same, within `TOLERANCE`."""
    if not (math.isfinite(one) and math.isfinite(other)):
        return one == other or (math.isnan(one) and math.isnan(other))
    largest = max(abs(one), abs(other))
    return abs(one - other) <= TOLERANCE * (max(SMALL, largest))


def _is_vector(items: list[Any]) -> bool:
    if len(items) < VECTOR:
        return False
    return all(type(item) in (int, float) for item in items) and any(type(item) is float for item in items)


def _are_same_vectors(one: list[float], other: list[float]) -> bool:
    own, its, both = (float(sum(map(mul, a, b))) for a, b in ((one, one), (other, other), (one, other)))
    if not (own and its and all(map(math.isfinite, (own, its, both)))):  # only zeros, NaN, or too large
        return all(map(are_near, map(float, one), map(float, other)))
    length, its_length = math.sqrt(own), math.sqrt(its)
    return both >= SAME_DIRECTION * length * its_length and are_near(length, its_length)
