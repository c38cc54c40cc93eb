"""The goals of Kanaria's default plan in each world, and whether it keeps them.

A goal is kept when the measured number is within it, and within error when chance explains the difference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.charts import Mark
from benchmarks.judge import tables
from benchmarks.judge.cases import Case
from benchmarks.judge.scores import Score
from rollout.format import count, span
from rollout.simulate.summary import Proportion, Quantile
from rollout.spec import RolloutSpec

Status = Literal["kept", "within error", "broken"]

_PLAN = RolloutSpec()
_MOST_ROLLED_BACK, _MOST_ASKED = 0.01, 0.05
_CLEAN_BEFORE_S = 123.0  # median to promotion in the clean world with six steps that soak for 10 s, without a warm-up
_LONGER_SOAKS_S = len(_PLAN.steps) * (_PLAN.soak - 10.0)
_CLEAN_S = _CLEAN_BEFORE_S + _LONGER_SOAKS_S + _PLAN.warmup_s
_FOUND_S = 60.0  # after the warm-up, which is not judged


@dataclass(frozen=True, slots=True)
class Goal:
    """A measured number and its upper limit."""

    words: str
    measure: Callable[[Score], Mark]
    limit: float
    show: Callable[[Score], str]  # the measured number in words

    def status(self, score: Score) -> Status:
        """Whether the releases of `score` keep the goal."""
        mark = self.measure(score)
        if mark.value <= self.limit:
            return "kept"
        return "within error" if mark.low <= self.limit else "broken"


def _at_most(words: str, of: Callable[[Score], Proportion], limit: float) -> Goal:
    return Goal(words, lambda score: _mark(of(score)), limit, lambda score: f"{tables.share_words(of(score))} %")


def _at_least(what: str, of: Callable[[Score], Proportion], ratio: float) -> Goal:
    def others(score: Score) -> Mark:
        return _mark(Proportion(of(score).of - of(score).count, of(score).of))

    words = f"{100 * ratio:.0f} % {what}"
    return Goal(words, others, 1 - ratio, lambda score: f"{tables.share_words(of(score))} %")


def _mark(share: Proportion) -> Mark:
    return Mark(share.ratio, share.low, share.high)


def _stopped(ratio: float) -> Goal:
    return _at_least("stopped", lambda score: score.rolled_back, ratio)


def _harmed(limit: int) -> Goal:
    return Goal(f"under {count(limit)} harmed", tables.harmed_mark, limit, tables.harmed)


def _median(words: str, of: Callable[[Score], Quantile], limit_s: float) -> Goal:
    def measure(score: Score) -> Mark:
        median = of(score)
        return Mark(median.value, median.low, median.high)

    return Goal(f"{words} (median)", measure, limit_s, lambda score: tables.time_words(of(score).value))


_HEALTHY = (
    _at_most("at most 1 % rolled back", lambda score: score.rolled_back, _MOST_ROLLED_BACK),
    _at_most("at most 5 % ask a person", lambda score: score.held, _MOST_ASKED),
)
_GOALS = {
    "clean": (
        _median(
            f"promoted within {span(_CLEAN_S)}: with short soaks and without a warm-up it was {span(_CLEAN_BEFORE_S)}",
            lambda score: score.promoted_s[0],
            _CLEAN_S,
        ),
    ),
    "blips+30": (
        _stopped(0.95),
        _median(f"found {span(_FOUND_S)} after the warm-up", lambda score: score.decided_s, _PLAN.warmup_s + _FOUND_S),
    ),
    "blips+5": (_stopped(0.95),),
    "cold-start": (_at_least("promoted", lambda score: score.promoted, 0.95),),
    "leak": (_stopped(1.0), _harmed(50)),
    "leak-at-full": (_stopped(0.95), _harmed(500)),
    "hangs": (_stopped(0.95), _harmed(30)),
    "route": (_stopped(0.95),),
    "pulses": (_stopped(0.95),),
    "heavy-x2": (_harmed(2000),),
    "few": (_median("promoted within 60 min", lambda score: score.promoted_s[0], 3600.0),),
}


def goals_of(case: Case) -> tuple[Goal, ...]:
    """The goals in one world."""
    return (*(_HEALTHY if case.truth == "healthy" else ()), *_GOALS.get(case.key, ()))
