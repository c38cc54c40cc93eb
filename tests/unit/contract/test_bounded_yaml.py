"""Untrusted YAML takes work in proportion to its length, and every fault in it raises a YAML error."""

import json
from typing import Any

import pytest
import yaml

from contract import bounded_yaml
from contract.bounded_yaml import TooDeep, TooLarge


def doubled(line: str, times: int = 9) -> str:
    """A text in which each line is ten references to the line before."""
    lines = ["a0: &a0 {k0: v}"]
    for number in range(1, times + 1):
        others = ", ".join([f"*a{number - 1}"] * 10)
        lines.append(f"a{number}: &a{number} " + line.format(others=others, number=number))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (doubled("[{others}]"), TooLarge),
        (doubled("{{x: [{others}]}}"), TooLarge),
        (doubled("{{<<: [{others}]}}"), TooLarge),  # is copied while it is read
        (doubled("{{<<: [{others}], k{number}: v}}"), TooLarge),
        ("&a [*a]", TooLarge),
        ("&a {x: {y: *a}}", TooLarge),
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60)), TooDeep),
        ("- b\n" * 60_000, TooLarge),
        ("a: {b: c}\n" * 20_000, TooLarge),
        ("[" * 10_000, TooDeep),
        ("x: " + "{y: " * 60 + "1" + "}" * 60, TooDeep),
    ],
)
def test_yaml_that_expands_too_far_is_refused(text: str, refused: type[yaml.YAMLError]) -> None:
    """It is refused before any object is built from it."""
    with pytest.raises(refused):
        bounded_yaml.load(text)


@pytest.mark.parametrize(
    "text",
    [
        "!!bool maybe",
        "!!int ''",
        "!!float ''",
        "!!timestamp soon",
        "2001-99-99",
        "1" * 5000,
        ":".join(["1"] * 300) + ".5",
        "? [1]\n: 2",
        "!!python/object/apply:os.system ['true']",
        "a: [",
    ],
)
def test_text_that_cannot_be_read_raises_a_yaml_error(text: str) -> None:
    """The callers catch YAML errors only."""
    with pytest.raises(yaml.YAMLError):
        bounded_yaml.load(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("base: &b {x: 1}\nmore: {<<: *b, y: [1, 2]}", {"base": {"x": 1}, "more": {"x": 1, "y": [1, 2]}}),
        ("a: &a [1, 2]\nb: [*a, *a]", {"a": [1, 2], "b": [[1, 2], [1, 2]]}),
        ("", None),
        ("steps: [shadow, 5, 100]", {"steps": ["shadow", 5, 100]}),
    ],
)
def test_normal_aliases_are_read(text: str, found: Any) -> None:
    """Merge keys and repeated references, as people write them, give the expected values."""
    assert json.dumps(bounded_yaml.load(text)) == json.dumps(found)
