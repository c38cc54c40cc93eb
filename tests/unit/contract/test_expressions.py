"""Expressions of a plan, which may be untrusted: what they may contain, and that none of them takes long."""

import json
from typing import Any

import pytest

from contract.expressions import MOST_LETTERS, Expression, field_path, fields, has_field, near, shortened, without

ANSWER = {"result": {"label": "spam", "scores": [{"name": "spam", "p": 0.9}, {"name": "ham", "p": 0.1}]}, "my-id": 7}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("result.label", "spam"),
        ("result.scores[0].p", 0.9),
        ("result.scores | max_by(@, &p).name", "spam"),
        ("result.scores[?p > `0.5`].name | [0]", "spam"),
        ('"my-id"', 7),
        ("result.scores[].name", ["spam", "ham"]),
        ("result.nothing", None),
        ("ceil(result)", None),  # an object is not a number
        ("sort(values(@))", None),
    ],
)
def test_an_expression_finds_a_part_of_an_answer(text: str, value: object) -> None:
    assert Expression(text).of(ANSWER) == value


@pytest.mark.parametrize("content", [None, 3, "text", [], {}, [[[1]]], {"a": float("nan")}, {"a": 10**400}])
@pytest.mark.parametrize(
    "text", ["a", "a.b[0]", "ceil(a)", "sum([].a)", "max_by(@, &a)", "avg(a)", "a > `1`", "(" * 149 + "a" + ")" * 149]
)
def test_no_content_makes_an_expression_raise(text: str, content: Any) -> None:
    Expression(text).of(content)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be empty"),
        ("label.", "not a JMESPath expression"),
        ("$.label", "did you mean `label`?"),
        ("$", "the whole answer is `@`"),
        ("my-id", '`"my-label"`'),
        ("`{", "at letter 1"),
        ("lenght(@)", "did you mean `length`?"),
        ("a" * (MOST_LETTERS + 1), f"at most {MOST_LETTERS} characters"),
        ("!" * 299 + "a", "parts|nested"),
        (".".join("a" * 100), "at most 60 parts"),
        ("[@,@]|[@,@]|[@,@]", "builds something new"),  # each part doubles the size
        ("{a: @, b: @}", "builds something new"),
        ("to_string(to_string(@))", "no function `to_string`"),
        ("map(&[@,@], @)", "builds something new|no function"),
        (
            "length(@[*].not_null(`[0, 0]`)[].not_null(`[0, 0]`)[])",
            "a list or an object",
        ),  # each part doubles the length
        ("@[*].not_null(`{}`).*", "a list or an object"),
        ("max_by(@, &not_null(`[1]`)[0])", "a list or an object"),
        ("contains(`[[1]]`, label)", "a list or an object"),
        ("[?a == `[]`]", "a list or an object"),
    ],
)
def test_an_invalid_or_expensive_expression_is_refused_with_a_reason(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Expression(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("took_ms", ("took_ms",)),
        ("meta.id", ("meta", "id")),
        ("items[].id", ("items", "id")),
        ("items[*].meta.id", ("items", "meta", "id")),
        ("by_word.*.score", ("by_word", "*", "score")),
    ],
)
def test_a_field_has_a_path(text: str, path: tuple[str, ...]) -> None:
    assert field_path(text) == path


@pytest.mark.parametrize("text", ["items[0].id", "a || b", "@", "length(a)", "[]", "a[?b]"])
def test_an_expression_that_names_no_field_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write the path of a field"):
        field_path(text)


def test_fields_are_removed_wherever_they_are() -> None:
    content = {"a": [{"id": 1, "x": 2}, {"id": 3}, 4], "m": {"p": {"z": 1}, "q": 5}, "t": 6}
    paths = tuple(map(field_path, ("a[].id", "m.*.z", "t", "nowhere.id")))
    assert [has_field(content, path) for path in paths] == [True, True, True, False]
    assert without(content, paths) == {"a": [{"x": 2}, {}, 4], "m": {"p": {}, "q": 5}}


@pytest.mark.parametrize("deep", ["[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900])
def test_deeply_nested_answers_raise_no_recursion_error(deep: str) -> None:
    """Looking for a field used more of Python's stack than reading the answer did."""
    content = json.loads(deep)
    assert [has_field(content, path) for path in (("b",), ("a", "b"))] == [False, False]
    assert without(content, (("b",),)) is content
    assert len(shortened(content)) < 80


def test_a_field_with_an_empty_list_exists() -> None:
    assert has_field({"ids": []}, ("ids",))
    assert not has_field({"by_word": {}}, ("by_word", "*"))


def test_a_similar_field_is_suggested() -> None:
    assert near("label", ANSWER) == "; did you mean `result.label`?"
    assert near("result.lable", ANSWER) == "; did you mean `result.label`?"
    assert near("zzz", ANSWER) == ""
    assert "result.scores[0].p" in list(fields(ANSWER))
    assert list(fields(json.loads('{"a":' * 500 + "1" + "}" * 500))) == ["a.a.a.a.a"]


def test_a_value_is_shown_in_one_short_line() -> None:
    assert shortened("a\x1b[31m\n" + "b" * 500).startswith('"a')
    assert len(shortened("b" * 500)) < 80
