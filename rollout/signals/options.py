"""The options of each signal in rollout.yaml, with their defaults."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from contract.metrics import CONFIDENCE, LABEL_AGES_S
from rollout.format import share, span
from rollout.judge.types import SignalRule
from rollout.units import Multiple, Ratio, seconds_in, written

# Bucket bounds of the gateway's histograms.
LATENCY_BOUNDS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000)
STEPS_PER_TENFOLD = 20  # finer bounds, from 1 ms to 10 s: each 12 % above the one before, rounded to two digits
LATENCY_STEPS_MS = tuple(float(f"{10 ** (step / STEPS_PER_TENFOLD):.2g}") for step in range(4 * STEPS_PER_TENFOLD + 1))
CONFIDENCE_BOUNDS = CONFIDENCE.bounds[:-1]  # the service's bucket bounds, without the last: no confidence is above it

LABELS_OF_AGE = "labels_of_age"  # wrong and all labels of answers that have reached an age; key: the age in seconds
LABELS_BY_CALLER = "labels_by_caller"  # wrong and all labels of a caller, as they arrive; key: the caller
LABELS_OF_AGE_BY_CALLER = "labels_of_age_by_caller"  # the same at an age; key: age and caller, `600,shop`
PAIRED_BY_CALLER = "paired_labels_by_caller"
LABELS_CAME = "labels_came"  # labels too late for an age, and all labels, as they arrive; key: the age in seconds

OnFail = Literal["rollback", "hold"]


class Options(BaseModel):
    """The options that every signal has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_fail: OnFail = "rollback"

    def rule(self, judged: SignalRule) -> SignalRule:
        """The judge's rule for the signal under this plan; `judged` is the catalogue's rule."""
        return replace(judged, on_fail=self.on_fail)

    @property
    def keys(self) -> frozenset[str] | None:
        """The wanted keys (after the colon in counters' names); None: every key."""
        return None

    @property
    def counted_as(self) -> str | None:
        """The name in readings of the counter that replaces the signal's own; None: its own."""
        return None

    @property
    def by_caller(self) -> str | None:
        """Prefix of the names in readings of the counts by caller; the caller follows. None: there are none."""
        return None

    @property
    def key_in_words(self) -> str:
        """The key, in words, of a signal that has only one key and no key in its name."""
        return ""

    @property
    def is_required(self) -> bool:
        """Whether no step passes before the canary has counts of it."""
        return False

    @property
    def idle_gross(self) -> str | None:
        """Why the gross limit of these options has no effect, in words; None: it has one, or there is no limit."""
        return None


class Tolerant(Options):
    """Options of a signal that is compared with stable's. Most signals need no others."""

    tolerance: Multiple = 1.25

    def rule(self, judged: SignalRule) -> SignalRule:
        return replace(judged, tolerance=self.tolerance, on_fail=self.on_fail)


class Errors(Tolerant):
    """Answers with a 5xx status, timeouts and lost connections included."""


class Rejected(Tolerant):
    """Answers with a 4xx status that say that the request is wrong: not 401, 403, 408 and 429."""


class ByRoute(Tolerant):
    """Answers of each route that are errors or rejections."""


class BySegment(Tolerant):
    """Answers in each segment that are errors or rejections."""


class Latency(Tolerant):
    """Answers slower than each bound."""

    slower_than_ms: tuple[int, ...] = (25, 50, 100, 250, 500, 1000)

    @field_validator("slower_than_ms", mode="before")
    @classmethod
    def _measured(cls, bounds: Any) -> Any:
        if not isinstance(bounds, list | tuple) or not bounds or any(each not in LATENCY_BOUNDS_MS for each in bounds):
            raise ValueError(
                f"the gateway counts at {list(LATENCY_BOUNDS_MS)} ms; choose among these, in a list such as [25, 100]"
            )
        return bounds

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(map(str, self.slower_than_ms))


class TypicalLatency(Options):
    """Answer times as a whole: by how much the geometric mean may rise. By default a larger rise is only reported."""

    on_fail: Literal["say", "rollback", "hold"] = "say"  # type: ignore[assignment] # wider than that of other signals
    tolerance: Ratio = 0.05

    def rule(self, judged: SignalRule) -> SignalRule:
        steps = STEPS_PER_TENFOLD * math.log10(1 + self.tolerance)
        numbers = replace(judged.numbers, tolerance=steps) if judged.numbers else None
        if self.on_fail == "say":
            return replace(judged, weight=0.0, numbers=numbers)
        return replace(judged, on_fail=self.on_fail, numbers=numbers)


class Classes(Tolerant):
    """How often each class is predicted. A better model may change these shares, so a person decides.

    A gross shift is the exception: harm proven beyond `gross` times stable's odds is rolled back without asking.
    """

    on_fail: OnFail = "hold"
    tolerance: Multiple = 1.5
    gross: Multiple | None = 4.0

    @field_validator("gross", mode="before")
    @classmethod
    def _number_or_null(cls, gross: Any) -> Any:
        if gross is not None and (isinstance(gross, bool) or not isinstance(gross, int | float)):
            raise ValueError("write a number such as 4, or `null` for no such limit")
        return gross

    def rule(self, judged: SignalRule) -> SignalRule:
        return replace(super().rule(judged), gross_tolerance=_beyond(self.gross, self.tolerance))

    @property
    def idle_gross(self) -> str | None:
        return _idle(self.gross, self.tolerance, _times)


class LowConfidence(Tolerant):
    """Answers whose confidence is under a bound. A better model may be less sure, so a person decides; see Classes."""

    on_fail: OnFail = "hold"
    tolerance: Multiple = 1.5
    below: float = 0.5
    gross: Multiple | None = 4.0

    @field_validator("below", mode="before")
    @classmethod
    def _measured(cls, below: Any) -> Any:
        if below not in CONFIDENCE_BOUNDS:
            raise ValueError(f"the service measures confidence at {list(CONFIDENCE_BOUNDS)}; choose one of these")
        return below

    def rule(self, judged: SignalRule) -> SignalRule:
        return replace(super().rule(judged), gross_tolerance=_beyond(self.gross, self.tolerance))

    @property
    def idle_gross(self) -> str | None:
        return _idle(self.gross, self.tolerance, _times)

    @property
    def keys(self) -> frozenset[str]:
        return frozenset((str(self.below),))

    @property
    def key_in_words(self) -> str:
        return share(self.below)


class WrongLabel(Tolerant):
    """Answers that were wrong, by the true labels that came later."""

    required: bool = False  # no promotion before labels have arrived
    after: float = 0.0  # age in seconds at which an answer counts, by its label then; 0: each label as it arrives

    @field_validator("after", mode="before")
    @classmethod
    def _counted(cls, after: Any) -> Any:
        seconds = seconds_in(after)
        if seconds not in (0.0, *LABEL_AGES_S):
            ages = ", ".join(map(written, LABEL_AGES_S))
            raise ValueError(f"the service counts labels at the ages 0s, {ages}; choose one of these")
        return seconds

    def rule(self, judged: SignalRule) -> SignalRule:
        # Without an age, a young version has only labels that arrive soon: few wrong ones among them prove nothing.
        return replace(super().rule(judged), tells_better=bool(self.after))

    @property
    def counted_as(self) -> str | None:
        return f"{LABELS_OF_AGE}:{self.after:.0f}" if self.after else None

    @property
    def by_caller(self) -> str:
        return f"{LABELS_OF_AGE_BY_CALLER}:{self.after:.0f}," if self.after else f"{LABELS_BY_CALLER}:"

    @property
    def key_in_words(self) -> str:
        return span(self.after) if self.after else ""

    @property
    def is_required(self) -> bool:
        return self.required


class PairedLabel(Options):
    """Answers that labels prove wrong where stable's were right, among those where only one of the two was right."""

    tolerance: Multiple = 1.25

    def rule(self, judged: SignalRule) -> SignalRule:
        return replace(super().rule(judged), margin=self.tolerance / (1 + self.tolerance))

    @property
    def by_caller(self) -> str:
        return f"{PAIRED_BY_CALLER}:"


class Disagreement(Options):
    """Answers to mirrored requests that differ from stable's. A better model differs too, so a person decides.

    A gross difference is the exception: beyond the share `gross` it is rolled back without asking.
    """

    on_fail: OnFail = "hold"
    at_most: Ratio = 0.1
    gross: Ratio | None = 0.5

    def rule(self, judged: SignalRule) -> SignalRule:
        return replace(super().rule(judged), margin=self.at_most, gross_margin=_beyond(self.gross, self.at_most))

    @property
    def idle_gross(self) -> str | None:
        return _idle(self.gross, self.at_most, share)


def _idle(gross: float | None, harmless: float, unit: Callable[[float], str]) -> str | None:
    if gross is None or gross > harmless:
        return None
    return f"its gross limit, {unit(gross)}, lies within the {unit(harmless)} that the plan calls harmless"


def _times(multiple: float) -> str:
    return f"{multiple:g} times stable's odds"


def _beyond(gross: float | None, harmless: float) -> float | None:
    """The gross limit; None where it has no effect, because the plan calls as much harmless."""
    return gross if gross is not None and gross > harmless else None
