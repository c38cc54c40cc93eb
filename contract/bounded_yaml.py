"""YAML of others: read with no more work and memory than its text is long, however its parts refer to each other.

A few hundred letters may stand for thousands of millions of values, by aliases (`*name`), or by `<<`, which copies what
it names while it is read. What a tag such as `!!bool` cannot read is an error of PyYAML's as all others.
"""

from typing import Any

import yaml

DEEPEST = 50  # levels
_LARGEST = 50_000  # values, each alias counted as all that it stands for; to read so many takes a second or two

# Raised by PyYAML's own constructors for what looks like a number, a date or has a tag, and is none.
_NOT_CONSTRUCTED = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError)


class TooDeep(yaml.YAMLError):
    """Lists within lists without end, which would take long to read."""


class TooLarge(yaml.YAMLError):
    """More values than anybody means to write, or aliases that stand for more."""


class Bounded(yaml.SafeLoader):
    """Raises TooDeep and TooLarge."""

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
    """What a text holds, not checked. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, loader)  # noqa: S506 - a safe loader
    except _NOT_CONSTRUCTED as error:
        raise yaml.YAMLError(" ".join(str(error).split()) or type(error).__name__) from error


def _weigh(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """How many values a node stands for, and in how many levels. `known`: those before it; None: it is around it."""
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
