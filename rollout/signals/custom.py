"""The user's own signals: counters on the metrics page of each version, which a plan names under `signals.custom`.

Such a page has no label for the version: its counts belong to the version of the process that serves it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rollout.format import span
from rollout.judge.types import NumberRule, Numbers, Pair, SignalRule, SignalWords
from rollout.mistakes import contradiction
from rollout.signals.catalogue import ReportPicture, Signal
from rollout.signals.counting import SQUARES, SUM
from rollout.signals.options import Options
from rollout.signals.selectors import Selector, selector
from rollout.units import SecondsOrNone

PREFIX = "custom."  # of their names in evidence, so that no signal of a later version of Kanaria has the same name
HISTORY_S = 600.0  # history of stable's counts that is needed before such a signal may roll back by itself
MOST_HISTORY_S = 1800.0  # longest history that is kept

_WEIGHT = 0.1
_TOLERANCE = 1.25
_PARTS = 1000  # a number's range is divided into this many parts, and numbers are counted in parts
_TOO_MANY = 2**43  # events of one process; with more, the sum of squares of parts would not fit into 63 bits
_COLOURS = ("#4c6ef5", "#0b7285", "#c2255c", "#5c940d", "#862e9c")

Series = tuple[Mapping[str, str], float]  # labels and value
Page = Mapping[str, Sequence[Series]]  # by the series' name

_Number = Annotated[float, Field(gt=-1e100, lt=1e100, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Share:
    """Events of which some are bad, counted by two counters."""

    part: Selector
    of: Selector
    is_good: bool  # whether the part counts the good ones

    @property
    def series(self) -> tuple[str, ...]:
        """Names of the series to read."""
        return self.part.name, self.of.name

    def pairs(self, page: Page) -> Iterator[tuple[str, Pair]]:
        """The counts, by the key of a counter; nothing where the page lacks the series or they are not counts."""
        total, part = total_of(page, self.of), total_of(page, self.part)
        if total is None or not is_count(total) or not is_count(part or 0.0):
            return
        counted = min(int(part or 0.0), int(total))
        yield "", Pair(int(total) - counted if self.is_good else counted, int(total))


@dataclass(frozen=True, slots=True)
class Bound:
    """Events of a histogram that are on the bad side of one bound."""

    histogram: Selector
    bound: float
    is_above: bool

    @property
    def series(self) -> tuple[str, ...]:
        """See `Share`."""
        return (f"{self.histogram.name}_bucket",)

    def pairs(self, page: Page) -> Iterator[tuple[str, Pair]]:
        """See `Share`."""
        within = buckets(page, self.histogram)
        if self.bound in within:
            total = within[math.inf]
            below = min(within[self.bound], total)
            yield "", Pair(total - below if self.is_above else below, total)


@dataclass(frozen=True, slots=True)
class Mean:
    """Events of a histogram as numbers, each taken as the middle of its bucket, within a range."""

    histogram: Selector
    low: float
    high: float

    @property
    def series(self) -> tuple[str, ...]:
        """See `Share`."""
        return (f"{self.histogram.name}_bucket",)

    def pairs(self, page: Page) -> Iterator[tuple[str, Pair]]:
        """The sum of the numbers and the sum of their squares, in parts of the range, as counters like all others."""
        within = buckets(page, self.histogram)
        if not within:
            return
        bounds = sorted(within)
        edges = [self.low, *(min(max(bound, self.low), self.high) for bound in bounds)]
        middles = [(below + above) / 2 for below, above in pairwise(edges)]
        parts = [round(_PARTS * (middle - self.low) / (self.high - self.low)) for middle in middles]
        cumulative = [within[bound] for bound in bounds]
        counts = [max(0, now - before) for before, now in pairwise([0, *cumulative])]
        total = sum(counts)
        yield SUM, Pair(sum(part * count for part, count in zip(parts, counts, strict=True)), _PARTS * total)
        squares = sum(part * part * count for part, count in zip(parts, counts, strict=True))
        yield SQUARES, Pair(squares, _PARTS * _PARTS * total)

    def numbers(self, sums: Pair, squares: Pair) -> Numbers:
        """Count, sum and sum of squares of the numbers, from the two counters."""
        total, low, one = sums.total // _PARTS, self.low, (self.high - self.low) / _PARTS
        return Numbers(
            total,
            low * total + one * sums.bad,
            low * low * total + 2 * low * one * sums.bad + one * one * squares.bad,
        )


@dataclass(frozen=True, slots=True)
class OwnCounter:
    """What one of the user's own signals counts. Its name is its definition, so a new definition is a new counter."""

    name: str
    counted: Share | Bound | Mean


class CustomSignal(Options):
    """One of the user's own signals: `bad` or `good` events `of` all, or a `histogram` and its bad part."""

    bad: str | None = None
    good: str | None = None
    of: str | None = None
    histogram: str | None = None
    above: _Number | None = None
    below: _Number | None = None
    between: tuple[_Number, _Number] | None = None
    worse: Literal["higher", "lower"] | None = None
    unit: str = ""
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    required: bool = False
    history: SecondsOrNone = HISTORY_S

    @field_validator("bad", "good", "of", "histogram")
    @classmethod
    def _named(cls, text: str | None) -> str | None:
        if text is not None:
            selector(text)
        return text

    @field_validator("above", "below", "between", "tolerance", mode="before")
    @classmethod
    def _numbers(cls, given: Any) -> Any:
        for each in given if isinstance(given, list | tuple) else [given]:
            if isinstance(each, bool | str):
                raise ValueError("write a number such as 0.5, without a unit: it has the histogram's unit")
        return given

    @field_validator("history")
    @classmethod
    def _kept(cls, history: float) -> float:
        if history > MOST_HISTORY_S:
            raise ValueError(f"write at most {span(MOST_HISTORY_S)}: no longer history is kept")
        return history

    @model_validator(mode="after")
    def _is_one_kind(self) -> "CustomSignal":
        given = {key for key in ("bad", "good", "of", "histogram") if getattr(self, key) is not None}
        sides = [key for key in ("above", "below", "between") if getattr(self, key) is not None]
        if given not in ({"bad", "of"}, {"good", "of"}, {"histogram"}):
            saw = f"it has {', '.join(f'`{key}`' for key in sorted(given))}" if given else "it names no series"
            raise contradiction(saw, "write `bad` and `of`, or `good` and `of`, or `histogram`")
        if "histogram" in given and len(sides) != 1:
            saw = f"`histogram` has {', '.join(f'`{key}`' for key in sides) or 'no bound'}"
            raise contradiction(saw, "write one of `above: 0.5`, `below: 0.5`, or `between: [0, 10]` for the mean")
        if "of" in given and sides:
            raise contradiction(f"`of` and `{sides[0]}`", f"`{sides[0]}` belongs to a `histogram`: leave it out")
        return self._of_numbers() if self.between else self._of_shares()

    def _of_numbers(self) -> "CustomSignal":
        low, high = self.between or (0.0, 0.0)
        if low >= high:
            raise contradiction(f"`between` is [{low:g}, {high:g}]", "write the smaller number first: `[0, 10]`")
        if self.worse is None:
            raise contradiction("`between` without `worse`", "write `worse: higher`, or `worse: lower`")
        if (self.tolerance or 0.0) >= high - low:
            saw = f"`tolerance` is {self.tolerance:g}, with `between` [{low:g}, {high:g}]"
            raise contradiction(saw, f"write less than {high - low:g}: means cannot be further apart")
        return self

    def _of_shares(self) -> "CustomSignal":
        for key in ("worse", "unit"):
            if getattr(self, key):
                raise contradiction(f"`{key}` without `between`", f"leave it out: only means have a `{key}`")
        if self.tolerance is not None and self.tolerance < 1:
            raise contradiction(f"`tolerance` is {self.tolerance:g}", "write the harmless multiple, at least 1")
        return self

    def rule(self, judged: SignalRule) -> SignalRule:
        """The judge's rule: `judged`, because the row already includes the options."""
        return judged

    @cached_property
    def counter(self) -> OwnCounter:
        """The counter of this signal."""
        if self.histogram is not None:
            histogram = selector(self.histogram)
            if self.between:
                low, high = self.between
                return OwnCounter(f"{PREFIX}{self.histogram} within {low:g} and {high:g}", Mean(histogram, low, high))
            is_above = self.above is not None
            bound = float(self.above if self.above is not None else self.below or 0.0)
            side = "above" if is_above else "below"
            return OwnCounter(f"{PREFIX}{self.histogram} {side} {bound!r}", Bound(histogram, bound, is_above=is_above))
        part, of, is_good = self.bad or self.good or "", self.of or "", self.good is not None
        side = "not " if is_good else ""
        return OwnCounter(f"{PREFIX}{side}{part} of {of}", Share(selector(part), selector(of), is_good=is_good))

    @property
    def counted_as(self) -> str:
        return self.counter.name

    @property
    def is_required(self) -> bool:
        return self.required

    def row(self, name: str, place: int) -> Signal:
        """The row of the signal, as in the catalogue.

        Args:
            name: the signal's name in evidence.
            place: its index among the plan's own signals; it selects the colour.
        """
        title, stated = name.removeprefix(PREFIX).replace("_", " "), self._in_words()
        form: Literal["mean over time", "over time"] = "mean over time" if self.between else "over time"
        return Signal(
            name=name,
            words=SignalWords(title, *(_kept_braces(part) for part in stated)),
            advice=f"Find out why {{stable}} does better by `{name}`: {_kept_braces(self._definition())}.",
            colour=_COLOURS[place % len(_COLOURS)],
            judged=self._judged(),
            options=CustomSignal,
            is_of_callers=True,
            picture=ReportPicture(form, title[:1].upper() + title[1:], f"Signal of your own: {self._definition()}."),
        )

    def _judged(self) -> SignalRule:
        if self.between:
            numbers = NumberRule(self.between, self.worse or "higher", self.tolerance or 0.0, unit=self.unit)
            return SignalRule("means", _WEIGHT, on_fail=self.on_fail, numbers=numbers)
        tolerance = _TOLERANCE if self.tolerance is None else self.tolerance
        return SignalRule("exact", _WEIGHT, tolerance=tolerance, on_fail=self.on_fail)

    def _in_words(self) -> tuple[str, str]:
        """What is counted, and which of it is bad, in words."""
        if self.histogram is not None:
            if self.between:
                return f"numbers of `{self.histogram}`", "are"
            side, bound = ("above", self.above) if self.above is not None else ("within", self.below)
            return f"`{self.histogram}`", f"were {side} {bound:g}"
        return f"`{self.of}`", f"were `{self.bad}`" if self.bad else f"were not `{self.good}`"

    def _definition(self) -> str:
        if self.between:
            return f"the mean of `{self.histogram}`, where {self.worse} is worse"
        what, bad = self._in_words()
        return f"the share of {what} that {bad}"


def total_of(page: Page, wanted: Selector) -> float | None:
    """The sum of all series that a selector matches; None where there is none, NaN where a value is not finite."""
    values = [value for labels, value in page.get(wanted.name, ()) if wanted.takes(labels)]
    return math.fsum(values) if values and all(map(math.isfinite, values)) else math.nan if values else None


def buckets(page: Page, histogram: Selector) -> dict[float, int]:
    """Events within each bound, summed over all series of the histogram; empty where the values are not counts.

    Bounds that some of these series lack are left out: they would lack the events of those series.
    """
    sums: dict[float, float] = {}
    series: dict[float, int] = {}
    for labels, value in page.get(f"{histogram.name}_bucket", ()):
        if histogram.takes(labels):
            try:
                bound = float(labels.get("le", ""))
            except ValueError:
                return {}
            sums[bound] = sums.get(bound, 0.0) + value
            series[bound] = series.get(bound, 0) + 1
    if not all(is_count(value) for value in sums.values()):
        return {}
    return {bound: int(value) for bound, value in sums.items() if series[bound] == series.get(math.inf)}


def is_count(value: float) -> bool:
    """Whether a value on a metrics page can be a number of events; larger values would not fit into the ledger."""
    return math.isfinite(value) and 0 <= value < _TOO_MANY


def _kept_braces(text: str) -> str:
    """`text` with its braces escaped, for words that are formatted later."""
    return text.replace("{", "{{").replace("}", "}}")
