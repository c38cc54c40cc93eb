"""Every contender on every case and in every world, many times: seeded, in parallel, with the same traffic for all.

The same seed gives a case the same rates of arrivals, the same drift and the same bursts with any tool. The requests
themselves differ, because each contender gives the canary another share of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.judge.cases import CASES
from benchmarks.judge.contenders import CONTENDERS, IN_WEATHER
from benchmarks.judge.result import Result
from benchmarks.judge.worlds import WORLDS
from rollout.simulate.parallel import Workers

_CONTENDERS = {contender.key: contender for contender in CONTENDERS}
_CASES = {case.key: (number, case) for number, case in enumerate((*CASES, *WORLDS))}


@dataclass(frozen=True, slots=True)
class Trial:
    """One release to be simulated."""

    case: str
    contender: str
    seed: int
    number: int


def run_trial(trial: Trial) -> Result:
    """Simulate one release. The same trial gives the same result."""
    number, case = _CASES[trial.case]
    return _CONTENDERS[trial.contender].lead(case.scenario, (trial.seed, number, trial.number))


def trials(runs: int, weather_runs: int, seed: int) -> list[Trial]:
    """All releases of a benchmark: `runs` of each contender on each case, `weather_runs` of each in each world."""
    return [
        Trial(case.key, contender.key, seed, run)
        for cases, contenders, releases in ((CASES, CONTENDERS, runs), (WORLDS, IN_WEATHER, weather_runs))
        for case in cases
        for contender in contenders
        for run in range(releases)
    ]


def run_all(todo: list[Trial], *, jobs: int) -> Iterator[tuple[Trial, Result]]:
    """Every trial with its result, in order, each as soon as it is ready."""
    with Workers(jobs) as workers:
        yield from zip(todo, workers.each(run_trial, todo), strict=True)
