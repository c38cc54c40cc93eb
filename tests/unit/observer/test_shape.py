"""The parts of an answer's shape that another answer lacks."""

from typing import Any

import pytest

from observer.answers import Opaque
from observer.shape import Changed, lost

GONE = ""


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ({"a": 1}, {"a": 2.5, "b": 0}, {}),
        ({"a": 1, "b": "x"}, {"a": 1}, {"b": Changed("text", GONE)}),
        ({"a": {"b": [1]}}, {"a": {}}, {"a.b": Changed("a list", GONE)}),
        ({"a": None}, {}, {"a": Changed("nothing", GONE)}),
        ({"a": None}, {"a": "x"}, {}),
        ({"a": "x"}, {"a": None}, {}),
        ({"a": True}, {"a": 1}, {"a": Changed("true or false", "a number")}),
        ([{"a": 1}], [{"a": "1"}], {"[].a": Changed("a number", "text")}),
        ([{"a": 1}], [], {}),
        ([1, 2], [1], {}),
        ({"a": 1}, [1], {"(body)": Changed("an object", "a list")}),
        ({"a": 1}, Opaque(b"x"), {"(body)": Changed("an object", "no JSON")}),
        (Opaque(b"x"), Opaque(b"y"), {}),
        ({str(n): n for n in range(100)}, {"other": 1}, {}),
        ({"a": {str(n): n for n in range(100)}}, {}, {"a": Changed("an object", GONE)}),
    ],
)
def test_only_changes_that_callers_would_notice_are_named(one: Any, other: Any, found: dict[str, Changed]) -> None:
    assert lost(one, other) == found


def test_a_deeply_nested_answer_is_examined_only_to_a_limit() -> None:
    """No recursion error ends a preflight."""
    one: Any = {}
    other: Any = {}
    for _ in range(500):
        one, other = {"a": one}, {"a": other}
    assert lost({"x": 1, "a": one}, {"a": other}) == {"x": Changed("a number", GONE)}
