"""JMESPath expressions that a plan may hold: which part of a service's JSON answer means what.

Plans may be untrusted, and expressions run beside the gateway. So an expression is short, and the work of each of its
parts is at most in proportion to the answer. It may not build new lists or texts, which could double with each letter,
and it may not contain a list or an object, which could replace each item of an answer.
Source of the language: https://jmespath.org/specification.html
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError, LexerError, ParseError

from contract.plain_text import one_line

MOST_LETTERS = 300
_SHOWN = 60  # characters of a value
MOST_PARTS = 60  # nodes of an expression's syntax tree

_BUILDS = {"multi_select_list": "[a, b]", "multi_select_dict": "{a: b}"}
FUNCTIONS = (
    *("abs", "avg", "ceil", "contains", "ends_with", "floor", "keys", "length", "max", "max_by", "min", "min_by"),
    *("not_null", "reverse", "sort", "sort_by", "starts_with", "sum", "to_number", "type", "values"),
)

_EVERY = "*"  # in the path of a field, any key of an object

FieldPath = tuple[str, ...]  # the keys to a field; list items are not part of it

Tree = Mapping[str, Any]  # as `jmespath` parses an expression


class Expression:
    """A compiled expression. Raises ValueError, worded for a person, if the text is not one or is not allowed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._compiled = _compiled(text)

    def of(self, content: object) -> object:
        """Its value for a JSON document; None: it matches nothing, or a function got a wrong type."""
        try:
            return self._compiled.search(content)
        except (JMESPathError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError):
            return None  # jmespath raises other errors than its own for odd content, such as NaN in `ceil`


def field_path(text: str) -> FieldPath:
    """The keys to the field that an expression names, such as `items[].id`. Raises ValueError if it names no field."""
    tree = _compiled(text).parsed
    try:
        if path := tuple(_keys(tree)):
            return path
    except KeyError:
        pass
    raise ValueError("write the path of a field, such as `took_ms`, `meta.id` or `items[].id`")


def without(content: Any, paths: tuple[FieldPath, ...]) -> Any:
    """Remove the fields at `paths` from `content`, in place, and return it."""
    for path in paths:
        for holder in _holders(content, path):
            for key in list(holder) if path[-1] == _EVERY else [path[-1]]:
                holder.pop(key, None)
    return content


def near(text: str, content: object) -> str:
    """`; did you mean ...?` with the field of `content` nearest to a path that matches nothing, or an empty text."""
    known = list(fields(content))
    last = text.rpartition(".")[2]
    found = difflib.get_close_matches(text, known, n=1) or [one for one in known if one.rpartition(".")[2] == last][:1]
    return f"; did you mean `{found[0]}`?" if found else ""


def fields(content: object, *, most: int = 200, deepest: int = 5) -> Iterator[str]:
    """The paths of the fields of a JSON document, as expressions. Of a list, only its first item is looked at."""
    found = 0
    waiting: list[tuple[str, object, int]] = [("", content, 0)]
    while waiting and found < most:
        path, value, depth = waiting.pop(0)
        if isinstance(value, list) and value and depth < deepest:
            waiting.append((f"{path}[0]", value[0], depth + 1))
        elif isinstance(value, dict) and depth < deepest:
            waiting += [
                (f"{path}.{_quoted(key)}" if path else _quoted(key), each, depth + 1) for key, each in value.items()
            ]
        elif path:
            found += 1
            yield path


def has_field(content: object, path: FieldPath) -> bool:
    """Whether a JSON document has the field."""
    return any(bool(holder) if path[-1] == _EVERY else path[-1] in holder for holder in _holders(content, path))


def shortened(value: object) -> str:
    """A value as JSON, short enough for one line."""
    try:
        text = one_line(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        return "a value that is nested too deeply"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@lru_cache(maxsize=256)
def _compiled(text: str) -> Any:
    if len(text) > MOST_LETTERS:
        raise ValueError(f"an expression has at most {MOST_LETTERS} characters; this one has {len(text)}")
    try:
        compiled = jmespath.compile(text)
        parts = list(_parts(compiled.parsed))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except JMESPathError as error:
        raise ValueError(f"it is not a JMESPath expression: {_why(text, error)}") from error
    if len(parts) > MOST_PARTS:
        raise ValueError(f"an expression has at most {MOST_PARTS} parts; this one has {len(parts)}")
    for part in parts:
        _check(part)
    return compiled


def _check(part: Tree) -> None:
    kind = part["type"]
    if kind in _BUILDS:
        raise ValueError(f"`{_BUILDS[kind]}` builds something new; name one value of the answer")
    if kind == "literal" and isinstance(part["value"], list | dict):
        shown = shortened(part["value"])
        raise ValueError(f"`{shown}` is a list or an object; compare with single values, such as `0.5` or 'spam'")
    if kind == "function_expression" and part["value"] not in FUNCTIONS:
        close = difflib.get_close_matches(part["value"], FUNCTIONS, n=1)
        meant = f"; did you mean `{close[0]}`?" if close else ""
        raise ValueError(f"there is no function `{part['value']}` here, but {', '.join(FUNCTIONS)}{meant}")


def _parts(tree: Tree) -> Iterator[Tree]:
    yield tree
    for child in tree.get("children", ()):
        if isinstance(child, dict):  # the children of a slice are numbers
            yield from _parts(child)


def _why(text: str, error: JMESPathError) -> str:
    if text.startswith("$"):
        rest = text.lstrip("$").lstrip(".")
        return f"`$` is JSONPath; did you mean `{rest}`?" if rest else "`$` is JSONPath; the whole answer is `@`"
    if "-" in text and '"' not in text:
        return 'write a key with `-` in double quotes, such as `"my-label"`'
    if isinstance(error, LexerError):
        return f"{error.message} at letter {error.lexer_position + 1}"
    if isinstance(error, ParseError):
        return f"{error.msg} at letter {(error.lex_position or 0) + 1}"
    return str(error).replace("\n", " ")


def _keys(tree: Tree) -> Iterator[str]:
    """The keys of a plain path. Raises KeyError for a part that a plain path cannot have."""
    children = tree.get("children", ())
    match tree["type"]:
        case "field":
            yield tree["value"]
        case "subexpression" | "projection":
            for child in children:
                yield from _keys(child)
        case "flatten":
            yield from _keys(children[0])
        case "value_projection":
            yield from _keys(children[0])
            yield _EVERY
            yield from _keys(children[1])
        case "identity":
            return
        case other:
            raise KeyError(other)


def _holders(content: Any, path: FieldPath) -> Iterator[dict[str, Any]]:
    """The objects in which to look for the last key of `path`. It uses no recursion: answers may be nested deeply."""
    waiting = [(content, path)]
    while waiting:
        value, rest = waiting.pop()
        if isinstance(value, list):
            waiting += [(item, rest) for item in value]
        elif isinstance(value, dict) and len(rest) == 1:
            yield value
        elif isinstance(value, dict):
            below = value.values() if rest[0] == _EVERY else [value[rest[0]]] if rest[0] in value else []
            waiting += [(each, rest[1:]) for each in below]


def _quoted(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else f'"{key}"'
