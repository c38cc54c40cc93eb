"""What an answer says, by the expressions of a plan. Whatever it holds, reading neither fails nor takes long."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from contract.answer_types import Label
from contract.expressions import Expression, FieldPath, field_path
from contract.own_answers import CONFIDENCE, LABEL, NUMBER, OwnAnswers, RouteAnswers, label_of, number_of
from observer.answers import Answer, Opaque

LARGEST_READ = 256 * 1024  # bytes; of a larger answer nothing is read


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer says."""

    label: Label | None = None  # a text or a number; None: it says nothing that is one
    confidence: float | None = None  # 0 to 1
    has_class: bool = True  # whether the plan says what its label or number is


@dataclass(frozen=True, slots=True)
class RouteReader:
    """Reads the answers of one route."""

    expressions: Mapping[str, Expression]  # of what is counted, by part
    ignored: tuple[FieldPath, ...] = ()

    @classmethod
    def of(cls, answers: RouteAnswers) -> Self:
        """For what a plan says about the route."""
        expressions = {part: Expression(text) for part, text in answers.counted.items()}
        return cls(expressions, tuple(map(field_path, answers.ignore)))

    @property
    def has_class(self) -> bool:
        """Whether the plan says what the label or number of an answer is."""
        return LABEL in self.expressions or NUMBER in self.expressions

    def said(self, answer: Answer) -> Said | None:
        """What an answer says; None where it is no success."""
        if answer.status // 100 != 2:
            return None
        content = answer.content() if answer.size <= LARGEST_READ else Opaque(b"")
        if isinstance(content, Opaque):
            return Said(has_class=self.has_class)
        found = {part: expression.of(content) for part, expression in self.expressions.items()}
        label = number_of(found[NUMBER]) if NUMBER in found else label_of(found.get(LABEL))
        confidence = number_of(found.get(CONFIDENCE))
        is_one = confidence is not None and 0 <= confidence <= 1
        return Said(label, confidence if is_one else None, self.has_class)


class Readers:
    """Those of all routes that a plan names, compiled once."""

    def __init__(self, answers: OwnAnswers) -> None:
        self._of = {route: RouteReader.of(said) for route, said in answers.root.items()}

    def of(self, route: str) -> RouteReader | None:
        """The reader of a route; None where nothing is known of its answers."""
        return self._of.get(route)

    @property
    def are_several(self) -> bool:
        """Whether several routes have classes."""
        return sum(reader.has_class for reader in self._of.values()) > 1
