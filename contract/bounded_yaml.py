"""Reads untrusted YAML with work and memory in proportion to the length of its text, whatever its aliases refer to.

A few hundred characters may stand for thousands of millions of values, by aliases (`*name`) or by `<<`, which copies
its target during reading. A value that a tag such as `!!bool` cannot read raises yaml.YAMLError like any other mistake.
"""

from typing import Any

import yaml

DEEPEST = 50  # levels
_LARGEST = 50_000  # values, each alias counted as all that it stands for; reading so many takes a second or two

# Raised by PyYAML's own constructors for text that looks like a number or a date, or has a tag, and cannot be read so.
_NOT_CONSTRUCTED = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError)


class TooDeep(yaml.YAMLError):
    """The text nests lists or sections too deeply, which would take long to read."""


class TooLarge(yaml.YAMLError):
    """The text holds too many values, or aliases that stand for too many."""


class Bounded(yaml.SafeLoader):
    """A safe loader that raises TooDeep and TooLarge."""

    _depth = _size = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        self._size += 1
        if self._depth > DEEPEST:
            raise TooDeep(f"lists or sections within {DEEPEST} others")
        if self._size > _LARGEST:
            raise TooLarge(f"more than {_LARGEST:,} values")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_document(self) -> yaml.Node | None:
        node = super().compose_document()
        if node is not None:
            _weigh(node, {})
        found: yaml.Node | None = node
        return found


def load(text: str, loader: type[Bounded] = Bounded) -> Any:
    """Read a text into plain values, which are not validated. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, loader)  # noqa: S506 - a safe loader
    except _NOT_CONSTRUCTED as error:
        raise yaml.YAMLError(" ".join(str(error).split()) or type(error).__name__) from error


def _weigh(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """The number of values that a node stands for, and of their levels.

    Args:
        known: the result for each node seen so far, by its id; None: the node is being weighed, so it contains itself.
    """
    if id(node) in known:
        if (found := known[id(node)]) is None:
            raise TooLarge("a part that contains itself")
        return found
    known[id(node)] = None
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        parts = node.value
    elif isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    size, depth = 1, 0
    for part in parts:
        more, below = _weigh(part, known)
        size, depth = size + more, max(depth, below)
        if size > _LARGEST:
            raise TooLarge(f"aliases that stand for more than {_LARGEST:,} values")
    if depth >= DEEPEST:
        raise TooDeep(f"lists or sections within {DEEPEST} others")
    known[id(node)] = size, depth + 1
    return size, depth + 1
