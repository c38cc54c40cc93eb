"""Compares two services by the JSON schemas in their manifests: what would callers of one miss in the other?

A manifest names an answer's fields only if the service does: for a method that returns `dict` they are unknown.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kanaria.stack.bentos import MOUNTED
from rollout.control.preflight import Loss

_DEEPEST = 20  # a schema may contain itself
_MOST_FIELDS = 50_000
_NAMES = {
    "string": "text", "number": "a number", "integer": "a number", "boolean": "true or false", "array": "a list",
    "object": "an object", "null": "nothing",
}  # fmt: skip


def losses(canary: Mapping[str, dict[str, Any]], stable: Mapping[str, dict[str, Any]]) -> tuple[Loss, ...]:
    """What would break for callers of `stable`, by route in the order of its manifest.

    Args:
        canary, stable: by route, what the manifest declares: `input` and `output`, or that it is `mounted`.
    """
    budget = _Budget()
    return tuple(loss for route, known in stable.items() for loss in _of_route(route, canary.get(route), known, budget))


@dataclass(slots=True)
class _Budget:
    """Limits the number of comparisons: schemas that contain each other would never end."""

    left: int = _MOST_FIELDS
    seen: dict[tuple[int, int], int] = field(default_factory=dict)  # smallest depth of each compared pair of schemas

    def takes(self, own: "_Part", known: "_Part") -> bool:
        """Whether to compare this pair. Without budget, only a pair that is new, or was compared only deeper."""
        pair = id(own.schema), id(known.schema)
        is_new = self.seen.get(pair, _DEEPEST + 1) > own.depth
        if is_new:
            self.seen[pair] = own.depth
        self.left -= 1
        return is_new or self.left >= 0


def _of_route(route: str, own: dict[str, Any] | None, known: dict[str, Any], budget: _Budget) -> Iterator[Loss]:
    if own is None:
        yield Loss(route, f"it has no route {route}")
        return
    if MOUNTED in (own.keys() | known.keys()):
        return
    for name in sorted(_required(_Part.of(own, "input"), _Part.of(known, "input"), budget)):
        yield Loss(f"{route} {name}", f"{route} requires `{name}`, which callers of stable need not send")
    answer, known_answer = _Part.of(own, "output"), _Part.of(known, "output")
    if answer.is_streamed != known_answer.is_streamed:
        ways = ("as a whole", "in parts")
        yield Loss(
            route, f"{route} answers {ways[answer.is_streamed]}; stable answers {ways[known_answer.is_streamed]}"
        )
        return
    yield from _answers(route, answer, known_answer, budget)


@dataclass(frozen=True, slots=True)
class _Part:
    """A JSON schema inside a root schema, which has the definitions."""

    root: dict[str, Any]
    schema: dict[str, Any]
    path: str = ""
    depth: int = 0

    @classmethod
    def of(cls, route: dict[str, Any], side: str) -> "_Part":
        root = route.get(side)
        root = root if isinstance(root, dict) else {}
        return cls(root, root).resolved()

    @property
    def is_streamed(self) -> bool:
        return bool(self.schema.get("is_stream"))

    @property
    def type(self) -> str:
        """Its JSON type; empty if it may have several types or any."""
        found = self.schema.get("type")
        return found if isinstance(found, str) and found in _NAMES else ""

    @property
    def required(self) -> frozenset[str]:
        found = self.schema.get("required")
        return frozenset(map(str, found)) if isinstance(found, list) else frozenset()

    def properties(self) -> "dict[str, _Part]":
        """The fields of an object by their names."""
        found = self.schema.get("properties")
        named = found.items() if isinstance(found, dict) and self.depth < _DEEPEST else ()
        return {
            str(name): self._below(schema, f"{self.path}.{name}" if self.path else str(name)) for name, schema in named
        }

    def items(self) -> "_Part | None":
        """The schema of a list's items; None if they have no common one."""
        found = self.schema.get("items")
        return self._below(found, f"{self.path}[]") if isinstance(found, dict) and self.depth < _DEEPEST else None

    def _below(self, schema: Any, path: str) -> "_Part":
        return _Part(self.root, schema if isinstance(schema, dict) else {}, path, self.depth + 1).resolved()

    def resolved(self) -> "_Part":
        """The schema with `$ref` followed into the root. A reference to nothing allows anything."""
        schema = self.schema
        for _ in range(_DEEPEST):
            if "$ref" not in schema:
                return _Part(self.root, schema, self.path, self.depth)
            found: Any = self.root
            for name in str(schema["$ref"]).removeprefix("#/").split("/"):
                found = found.get(name) if isinstance(found, dict) else None
            schema = found if isinstance(found, dict) else {}
        return _Part(self.root, {}, self.path, self.depth)


def _required(own: _Part, known: _Part, budget: _Budget) -> Iterator[str]:
    """Paths of inputs that `own` requires and `known` does not."""
    if not budget.takes(own, known):
        return
    fields, known_fields = own.properties(), known.properties()
    for name in own.required - known.required:
        yield fields[name].path if name in fields else (f"{own.path}.{name}" if own.path else name)
    for name in fields.keys() & known_fields.keys():
        yield from _required(fields[name], known_fields[name], budget)
    items, known_items = own.items(), known.items()
    if items and known_items:
        yield from _required(items, known_items, budget)


def _answers(route: str, own: _Part, known: _Part, budget: _Budget) -> Iterator[Loss]:
    """What `known` declares about its answers and `own` does not, or declares differently."""
    if own.type and known.type and _NAMES[own.type] != _NAMES[known.type]:
        name, place = (f"`{own.path}`", f"{route} {own.path}") if own.path else ("the whole", route)
        yield Loss(
            place, f"{name} of its answers at {route} is {_NAMES[own.type]}; on stable it is {_NAMES[known.type]}"
        )
        return
    if not budget.takes(own, known):
        return
    fields, known_fields = own.properties(), known.properties()
    for name, inner in known_fields.items():
        if name in fields:
            yield from _answers(route, fields[name], inner, budget)
        else:
            yield Loss(f"{route} {inner.path}", f"its answers at {route} lack `{inner.path}`")
    items, known_items = own.items(), known.items()
    if items and known_items:
        yield from _answers(route, items, known_items, budget)
