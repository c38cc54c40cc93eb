"""What the finishes of a benchmark add up to: shares, times and harm, each with its 95 % confidence interval.

Called by `cli` and `page`.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from rollout.benchmarks.cases import CASES, Case
from rollout.benchmarks.contenders import CONTENDERS, Contender
from rollout.benchmarks.finish import Finish
from rollout.benchmarks.race import Heat
from rollout.simulation.summary import Proportion, Quantile, proportion, quantile

_RESAMPLES = 2000
_LIMITS = (2.5, 97.5)  # percentiles


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and its 95 % confidence interval: percentiles of a bootstrap, as a few releases do most of the harm."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Score:
    """One contender on one case."""

    case: Case
    contender: Contender
    promoted: Proportion
    rolled_back: Proportion
    by_deadline: Proportion  # rolled back because no proof of safety came in time
    by_guard: Proportion  # rolled back by an absolute limit
    held: Proportion
    stopped_s: tuple[Quantile, Quantile]  # median and p90 from the start of the harm to the rollback; inf: never
    promoted_s: tuple[Quantile, Quantile]  # median and p90 to promotion; inf: never
    harmed: Mean  # requests


def scores(finishes: Iterable[tuple[Heat, Finish]]) -> Mapping[tuple[str, str], Score]:
    """The score for every pair of case and contender that ran."""
    by_pair: defaultdict[tuple[str, str], list[Finish]] = defaultdict(list)
    for heat, finish in finishes:
        by_pair[heat.case, heat.contender].append(finish)
    return {
        (case.key, contender.key): _score(case, contender, by_pair[case.key, contender.key])
        for case in CASES
        for contender in CONTENDERS
        if (case.key, contender.key) in by_pair
    }


def _score(case: Case, contender: Contender, finishes: list[Finish]) -> Score:
    after_s = case.scenario.harm_after_s
    stopped_s = [
        max(0.0, finish.stopped_s - after_s) if finish.outcome == "rolled_back" else math.inf for finish in finishes
    ]
    promoted_s = [math.inf if finish.full_s is None else finish.full_s for finish in finishes]
    return Score(
        case=case,
        contender=contender,
        promoted=proportion([finish.outcome == "promoted" for finish in finishes]),
        rolled_back=proportion([finish.outcome == "rolled_back" for finish in finishes]),
        by_deadline=_rolled_back_by("deadline", finishes),
        by_guard=_rolled_back_by("guard", finishes),
        held=proportion([finish.outcome == "held" for finish in finishes]),
        stopped_s=(quantile(stopped_s, 0.5), quantile(stopped_s, 0.9)),
        promoted_s=(quantile(promoted_s, 0.5), quantile(promoted_s, 0.9)),
        harmed=_mean([finish.harmed for finish in finishes]),
    )


def _rolled_back_by(cause: str, finishes: list[Finish]) -> Proportion:
    return proportion([finish.outcome == "rolled_back" and finish.cause == cause for finish in finishes])


def _mean(values: list[float]) -> Mean:
    sample = np.asarray(values)
    drawn = np.random.default_rng(0).choice(sample, size=(_RESAMPLES, len(sample)))
    low, high = np.percentile(drawn.mean(axis=1), _LIMITS)
    return Mean(float(sample.mean()), float(low), float(high))
