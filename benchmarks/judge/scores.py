"""Summarises the results of a benchmark: shares, times and harm, each with its 95 % confidence interval."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.judge.cases import CASES, Case
from benchmarks.judge.contenders import CONTENDERS, Contender
from benchmarks.judge.result import Result
from benchmarks.judge.trials import Trial
from benchmarks.judge.worlds import WORLDS
from rollout.simulate.summary import Proportion, Quantile, proportion, quantile

_RESAMPLES = 2000
_LIMITS = (2.5, 97.5)  # percentiles


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and its 95 % confidence interval: percentiles of a bootstrap, since a few releases do most harm."""

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
    promoted_s: tuple[Quantile, Quantile]  # median and p90 to a promotion that lasted; inf: never
    decided_s: Quantile  # median to the promotion or the rollback; inf: neither within the horizon
    harmed: Mean  # requests


Scores = Mapping[tuple[str, str], Score]  # by the keys of case and contender


def scores(results: Iterable[tuple[Trial, Result]]) -> Scores:
    """The score of every contender on every case that it ran."""
    by_pair: defaultdict[tuple[str, str], list[Result]] = defaultdict(list)
    for trial, result in results:
        by_pair[trial.case, trial.contender].append(result)
    return {
        (case.key, contender.key): _score(case, contender, by_pair[case.key, contender.key])
        for case in (*CASES, *WORLDS)
        for contender in CONTENDERS
        if (case.key, contender.key) in by_pair
    }


def _score(case: Case, contender: Contender, results: list[Result]) -> Score:
    after_s = case.scenario.harm_after_s
    stopped_s = [
        max(0.0, result.stopped_s - after_s) if result.outcome == "rolled_back" else math.inf for result in results
    ]
    promoted_s = [
        result.full_s if result.outcome == "promoted" and result.full_s is not None else math.inf for result in results
    ]
    decided_s = [math.inf if result.outcome == "held" else result.stopped_s for result in results]
    return Score(
        case=case,
        contender=contender,
        promoted=proportion([result.outcome == "promoted" for result in results]),
        rolled_back=proportion([result.outcome == "rolled_back" for result in results]),
        by_deadline=_rolled_back_by("deadline", results),
        by_guard=_rolled_back_by("guard", results),
        held=proportion([result.outcome == "held" for result in results]),
        stopped_s=(quantile(stopped_s, 0.5), quantile(stopped_s, 0.9)),
        promoted_s=(quantile(promoted_s, 0.5), quantile(promoted_s, 0.9)),
        decided_s=quantile(decided_s, 0.5),
        harmed=_mean([result.harmed for result in results]),
    )


def _rolled_back_by(cause: str, results: list[Result]) -> Proportion:
    return proportion([result.outcome == "rolled_back" and result.cause == cause for result in results])


def _mean(values: list[float]) -> Mean:
    sample = np.asarray(values)
    drawn = np.random.default_rng(0).choice(sample, size=(_RESAMPLES, len(sample)))
    low, high = np.percentile(drawn.mean(axis=1), _LIMITS)
    return Mean(float(sample.mean()), float(low), float(high))
