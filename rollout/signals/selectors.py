"""Series of a metrics page as people name them in Prometheus: `answers_total{outcome="refused"}`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import re2

Compared = Literal["=", "!=", "=~", "!~"]

_WHOLE = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(.*)\}\s*)?", re.DOTALL)
_MATCHER = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Matcher:
    """The condition on one label's value. A label that a series lacks has the empty value."""

    label: str
    compared: Compared
    value: str  # for `=~` and `!~` a regular expression for the whole value

    def takes(self, labels: Mapping[str, str]) -> bool:
        given = labels.get(self.label, "")
        is_equal = _expression(self.value).fullmatch(given) is not None if "~" in self.compared else given == self.value
        return is_equal is (self.compared in ("=", "=~"))


@dataclass(frozen=True, slots=True)
class Selector:
    """All series with one name whose labels meet the conditions."""

    name: str
    matchers: tuple[Matcher, ...] = ()

    def takes(self, labels: Mapping[str, str]) -> bool:
        return all(matcher.takes(labels) for matcher in self.matchers)


@lru_cache(maxsize=256)
def selector(text: str) -> Selector:
    """Parse a selector. Raises ValueError that says what to write."""
    whole = _WHOLE.fullmatch(text)
    if whole is None:
        raise ValueError('write the name of a series, and its labels in braces: `answers_total{outcome="refused"}`')
    name, inner = whole[1], (whole[2] or "").strip()
    matchers, at = [], 0
    while at < len(inner):
        found = _MATCHER.match(inner, at)
        if found is None:
            raise ValueError(f'write labels such as `outcome="refused"`, with a comma between two; not `{inner[at:]}`')
        matchers.append(_matcher(*found.groups()))
        at = found.end()
    return Selector(name, tuple(matchers))


@lru_cache(maxsize=256)
def _expression(text: str) -> Any:
    """A compiled RE2 expression, as in Prometheus: matching takes linear time, since a plan may come from anyone."""
    options = re2.Options()
    options.log_errors = False  # they are raised
    return re2.compile(text, options)


def _why(error: re2.error) -> str:
    said = error.args[0]
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def _matcher(label: str, compared: str, quoted: str) -> Matcher:
    value = re.sub(r"\\(.)", lambda escaped: "\n" if escaped[1] == "n" else escaped[1], quoted)
    return matcher(label, next(each for each in get_args(Compared) if each == compared), value)


def matcher(label: str, compared: Compared, value: str) -> Matcher:
    """A matcher of one label. Raises ValueError where `value` must be a regular expression and is not."""
    if "~" in compared:
        try:
            _expression(value)
        except re2.error as error:
            raise ValueError(f"`{value}` is not a regular expression (RE2, as in Prometheus): {_why(error)}") from error
    return Matcher(label, compared, value)
