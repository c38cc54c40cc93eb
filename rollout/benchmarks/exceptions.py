"""Where another tool does better than Kanaria's default, found in the scores; why, written here. Called by `page`."""

from collections.abc import Callable
from dataclasses import dataclass

from rollout.benchmarks import tables
from rollout.benchmarks.cases import CASES
from rollout.benchmarks.contenders import CONTENDERS
from rollout.benchmarks.figures import Mark
from rollout.benchmarks.results import Score

UNEXPLAINED = "not explained yet"
_OURS = "kanaria"


@dataclass(frozen=True, slots=True)
class _Measure:
    """Something of which less is better."""

    name: str
    truths: tuple[str, ...]
    mark_of: Callable[[Score], Mark]
    words: Callable[[Score], str]


_MEASURES = (
    _Measure("rolled back, %", ("healthy", "both_bad"), tables.rolled_back_mark, tables.rolled_back),
    _Measure("promoted, %", ("worse", "no_data"), tables.promoted_mark, tables.promoted),
    _Measure("harmed", ("worse",), tables.harmed_mark, tables.harmed),
)

_THRESHOLD = "A limit of 99 % suits a harm that lies just beyond it; it also rolls back every healthy version with"
_WITHIN_BUDGET = "By design: an excess of 0.1 % is a fifth of the risk budget. Who minds it sets `risk_budget: 0.05%`."
_WATCHED = (
    "The default ramp is over by then and the canary has all traffic, in the others' ramps 5 to 25 %. The watch, which "
    "compares with what stable failed before, needs some 20 seconds. With `soak: 5m`, as slow as the others, fewer "
    "requests are harmed than by any of them."
)
_ONE_MINUTE = (
    "The first minute without a request, or with one failure, is enough for it: it also rolls back most healthy "
    "canaries at 2 requests/s."
)
_REASONS = {
    ("promoted, %", "x2-of-0.1"): _WITHIN_BUDGET,
    ("harmed", "x2-of-0.1"): _WITHIN_BUDGET,
    ("harmed", "late-x10"): _WATCHED,
    ("harmed", "late-half"): _WATCHED,
    ("harmed", "x2"): (
        "The excess is the risk budget itself: up to 1 % of releases may promote it, and these few do most of the harm."
        " An hour at 5 %, or a limit of 99 % that lies just there, does less."
    ),
    ("harmed", "plus-1"): f"{_THRESHOLD} 1 % errors.",
    ("harmed", "x5"): f"{_THRESHOLD} 1 % errors.",
    ("harmed", "x10"): _ONE_MINUTE,
    ("harmed", "x10-2rps"): _ONE_MINUTE,
}


def exceptions_table(scores: tables.Scores) -> str:
    """Every case and measure in which some other tool is better beyond chance."""
    rows = []
    for measure in _MEASURES:
        for case in (case for case in CASES if case.truth in measure.truths):
            ours = scores[case.key, _OURS]
            others = [scores[case.key, other.key] for other in CONTENDERS if not other.is_ours]
            better = [score for score in others if measure.mark_of(score).high < measure.mark_of(ours).low]
            if better:
                said = "; ".join(f"{score.contender.title}: {measure.words(score)}" for score in better)
                reason = _REASONS.get((measure.name, case.key), UNEXPLAINED)
                rows.append((case.title, measure.name, measure.words(ours), said, reason))
    return tables.table(("case", "", "Kanaria", "better", "why"), rows) if rows else "Nowhere."
