"""Reads an answer by the expressions of a plan. Whatever the answer holds, reading does not fail or take long."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from contract.answer_types import Label
from contract.expressions import Expression, FieldPath, field_path
from contract.own_answers import CONFIDENCE, LABEL, LONGEST_WORD, NUMBER, OwnAnswers, RouteAnswers, label_of, number_of
from observer.answers import Answer, Opaque
from observer.comparison import are_near

LARGEST_READ = 256 * 1024  # bytes; a larger answer is not read


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer says."""

    label: Label | None = None  # a text or a number; None: the answer has neither at that place
    confidence: float | None = None  # 0 to 1
    has_class: bool = True  # whether the plan says where its label or number is


Row = tuple[float | str | None, ...]  # the kept values of a request: numbers, then texts; None: missing
NO_ROW: Row = ()


@dataclass(frozen=True, slots=True)
class RouteReader:
    """Reads the answers of one route."""

    expressions: Mapping[str, Expression]  # of the counted parts, by part
    ignored: tuple[FieldPath, ...] = ()
    numbers: tuple[Expression | None, ...] = ()  # of a request, by column; None: this route lacks the column
    words: tuple[Expression | None, ...] = ()  # the same for texts

    @classmethod
    def of(cls, answers: RouteAnswers, *, features: Sequence[str], words: Sequence[str]) -> Self:
        """The reader for a route's section of a plan; `features` and `words` are the columns of all routes."""
        expressions = {part: Expression(text) for part, text in answers.counted.items()}
        numbers, texts = (
            tuple(Expression(of[name]) if name in of else None for name in columns)
            for columns, of in ((features, answers.features), (words, answers.words))
        )
        return cls(expressions, tuple(map(field_path, answers.ignore)), numbers, texts)

    @property
    def has_class(self) -> bool:
        """Whether the plan says where the label or number of an answer is."""
        return LABEL in self.expressions or NUMBER in self.expressions

    def said(self, answer: Answer) -> Said | None:
        """What an answer says; None if it is not a success."""
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

    def row(self, request: Answer | None) -> Row:
        """The kept values of a request's body. A value that is absent, or of another type, is missing (None)."""
        if not (self.numbers or self.words):
            return NO_ROW
        content = request.content() if request is not None and request.size <= LARGEST_READ else Opaque(b"")
        found = None if isinstance(content, Opaque) else content
        values = (None if each is None else each.of(found) for each in self.numbers)
        texts = (None if each is None else each.of(found) for each in self.words)
        return (*map(_as_number, values), *map(_as_word, texts))


class Readers:
    """The readers of all routes that a plan names, compiled once."""

    def __init__(self, answers: OwnAnswers) -> None:
        self.reads_requests = answers.reads_requests
        self._of = {
            route: RouteReader.of(said, features=answers.features, words=answers.words)
            for route, said in answers.root.items()
        }

    def of(self, route: str) -> RouteReader | None:
        """The reader of a route; None if the plan says nothing about its answers."""
        return self._of.get(route)

    @property
    def are_several(self) -> bool:
        """Whether several routes have classes."""
        return sum(reader.has_class for reader in self._of.values()) > 1


def is_right(answer: object, truth: object) -> bool:
    """Whether an answer is correct: the same label as text, or a number near the truth."""
    if isinstance(answer, str):
        return label_of(truth) == answer
    one, other = number_of(answer), number_of(truth)
    return one is not None and other is not None and are_near(one, other)


def _as_number(value: object) -> float | None:
    return float(value) if isinstance(value, bool) else number_of(value)


def _as_word(value: object) -> str | None:
    word = label_of(value)
    return word if word is not None and len(word) <= LONGEST_WORD else None
