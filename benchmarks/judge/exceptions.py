"""Finds in the scores where another tool does better than Kanaria's default, and explains it."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.charts import Mark
from benchmarks.judge import tables
from benchmarks.judge.cases import CASES
from benchmarks.judge.contenders import CONTENDERS
from benchmarks.judge.scores import Score, Scores
from benchmarks.markdown import table

UNEXPLAINED = "not explained yet"
_OURS = "kanaria"


@dataclass(frozen=True, slots=True)
class _Measure:
    """A number that is better when it is smaller."""

    name: str
    truths: tuple[str, ...]
    mark_of: Callable[[Score], Mark]
    words: Callable[[Score], str]


_MEASURES = (
    _Measure("rolled back, %", ("healthy", "both_bad"), tables.rolled_back_mark, tables.rolled_back),
    _Measure("promoted, %", ("worse", "no_data"), tables.promoted_mark, tables.promoted),
    _Measure("harmed", ("worse",), tables.harmed_mark, tables.harmed),
)

_THRESHOLD = "A limit of 99 % suits harm that lies just beyond it; it also rolls back every healthy canary with"
_WITHIN_BUDGET = (
    "By design: an excess of 0.1 % is a fifth of the risk budget. If that is too much for you, set "
    "`risk_budget: 0.05%`."
)
_WATCHED = (
    "By then the default ramp is over and the canary has nearly all traffic; in the other tools' ramps it has 5 to "
    "25 %. With `soak: 5m`, as slow as theirs, Kanaria harms fewer requests than any of the other tools."
)
_ONE_MINUTE = (
    "One minute without a request, or with one failure, is enough for a rollback; most healthy canaries with 2 "
    "requests/s are rolled back as well."
)
_REASONS = {
    ("promoted, %", "x2-of-0.1"): _WITHIN_BUDGET,
    ("harmed", "x2-of-0.1"): _WITHIN_BUDGET,
    ("harmed", "late-x10"): _WATCHED,
    ("harmed", "late-half"): _WATCHED,
    ("harmed", "x2"): (
        "The excess is the risk budget itself: up to 1 % of releases may promote it, and these few do most of the harm."
        " A test that tolerates no excess, an hour at 5 %, or a limit of 99 % that happens to lie there, harms fewer "
        "requests."
    ),
    ("harmed", "plus-1"): f"{_THRESHOLD} 1 % errors.",
    ("harmed", "x5"): f"{_THRESHOLD} 1 % errors.",
    ("harmed", "x10"): _ONE_MINUTE,
    ("harmed", "x10-2rps"): _ONE_MINUTE,
}


def exceptions_table(scores: Scores) -> str:
    """Every case and number in which another tool is better than chance explains."""
    rows = []
    for measure in _MEASURES:
        for case in (case for case in CASES if case.truth in measure.truths):
            ours = scores[case.key, _OURS]
            others = [scores[case.key, other.key] for other in CONTENDERS if not other.is_ours]
            better = [score for score in others if measure.mark_of(score).high < measure.mark_of(ours).low]
            if better:
                others_do = "; ".join(f"{score.contender.title}: {measure.words(score)}" for score in better)
                reason = _REASONS.get((measure.name, case.key), UNEXPLAINED)
                rows.append((case.title, measure.name, measure.words(ours), others_do, reason))
    return table(("case", "", "Kanaria", "better", "why"), rows) if rows else "Nowhere."
