"""What the answers of a service without the model contract mean: the section `answers` of a plan.

Source of every field's meaning: docs/own-service.md.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, StrictStr, model_validator

from contract.expressions import Expression, field_path

LABEL, NUMBER, CONFIDENCE = "label", "number", "confidence"  # parts of answers that are counted
OTHER, NOTHING = "(other)", "(none)"  # classes: of labels beyond `MOST_CLASSES`, and of answers without a label
MOST_CLASSES = 50  # counted one by one, over all versions and routes
LONGEST_LABEL = 200  # characters; a longer text is not a label
MOST_ROUTES = 20
LONGEST_WORD = 100  # characters of a request's text that is kept; a longer one is kept as missing
_MOST_IGNORED = _MOST_COLUMNS = 50


def _expression(text: str) -> str:
    Expression(text)
    return text


def _field(text: str) -> str:
    field_path(text)
    return text


def _path(route: str) -> str:
    if not route.startswith("/"):
        raise ValueError("name a route by its path, such as `/detect`")
    return route


_Expression = Annotated[StrictStr, AfterValidator(_expression)]
_Field = Annotated[StrictStr, AfterValidator(_field)]
_Name = Annotated[StrictStr, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,49}$")]
_Route = Annotated[StrictStr, AfterValidator(_path)]


class RouteAnswers(BaseModel):
    """What the JSON answers of one route say, as JMESPath expressions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: _Expression | None = None
    number: _Expression | None = None
    confidence: _Expression | None = None  # 0 to 1
    ignore: Annotated[tuple[_Field, ...], Field(max_length=_MOST_IGNORED)] = ()  # left out where answers are compared
    features: Annotated[dict[_Name, _Expression], Field(max_length=_MOST_COLUMNS)] = Field(default_factory=dict)
    words: Annotated[dict[_Name, _Expression], Field(max_length=_MOST_COLUMNS)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.label is not None and self.number is not None:
            raise ValueError("an answer is a `label` or a `number`; keep one of the two")
        if both := sorted(self.features.keys() & self.words.keys()):
            raise ValueError(f"`{both[0]}` is a number in `features` and a text in `words`; keep one of the two")
        return self

    @property
    def counted(self) -> Mapping[str, str]:
        """The expressions whose values are counted, by part."""
        found = {LABEL: self.label, NUMBER: self.number, CONFIDENCE: self.confidence}
        return {part: text for part, text in found.items() if text is not None}


class OwnAnswers(RootModel[dict[_Route, RouteAnswers]]):
    """What the answers of each named route say, by its path."""

    model_config = ConfigDict(frozen=True)

    root: dict[_Route, RouteAnswers] = Field(default_factory=dict, max_length=MOST_ROUTES)

    def __bool__(self) -> bool:
        return bool(self.root)

    def counted(self, routes: Iterable[str]) -> frozenset[str]:
        """The parts of the answers of `routes` that are counted."""
        wanted = set(routes)
        return frozenset(part for route, said in self.root.items() if route in wanted for part in said.counted)

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the numbers that are kept from requests, of all routes."""
        return tuple(sorted({name for said in self.root.values() for name in said.features}))

    @property
    def words(self) -> tuple[str, ...]:
        """The names of the texts that are kept from requests, of all routes."""
        return tuple(sorted({name for said in self.root.values() for name in said.words} - set(self.features)))

    @property
    def has_classes(self) -> bool:
        """Whether the answers of any route are a label or a number."""
        return bool(self.counted(self.root) & {LABEL, NUMBER})

    @property
    def reads_requests(self) -> bool:
        """Whether anything is kept from requests."""
        return bool(self.features or self.words)

    def of(self, route: str) -> RouteAnswers | None:
        """What the plan says about a route; None: nothing."""
        return self.root.get(route)


NO_ANSWERS = OwnAnswers()


def label_of(value: object) -> str | None:
    """A value as the text of a label; None if it is not a short enough text, a whole number, true or false."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        value = str(value) if abs(value) < 10**LONGEST_LABEL else ""
    return value if isinstance(value, str) and 0 < len(value) <= LONGEST_LABEL else None


def number_of(value: object) -> float | None:
    """A value as a finite number; None: it is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
