"""Every contender on every case, many times: seeded, in parallel, the same traffic for all.

Called by `cli`. The same seed gives a case the same arrivals law, the same drift and the same bursts, whoever leads;
the requests themselves differ, as each contender gives the canary another share of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rollout.benchmarks.cases import CASES
from rollout.benchmarks.contenders import CONTENDERS
from rollout.benchmarks.finish import Finish
from rollout.simulation.parallel import Workers

_CONTENDERS = {contender.key: contender for contender in CONTENDERS}
_CASES = {case.key: (number, case) for number, case in enumerate(CASES)}


@dataclass(frozen=True, slots=True)
class Heat:
    """One release to be run."""

    case: str
    contender: str
    seed: int
    number: int


def run_heat(heat: Heat) -> Finish:
    """Run one release. The same heat gives the same finish."""
    number, case = _CASES[heat.case]
    return _CONTENDERS[heat.contender].lead(case.scenario, (heat.seed, number, heat.number))


def heats(runs: int, seed: int) -> list[Heat]:
    """All releases of a benchmark with so many runs of each contender on each case."""
    return [Heat(case, contender, seed, run) for case in _CASES for contender in _CONTENDERS for run in range(runs)]


def run_all(todo: list[Heat], *, jobs: int) -> Iterator[tuple[Heat, Finish]]:
    """Every heat with its finish, in order, as soon as it is known."""
    with Workers(jobs) as workers:
        yield from zip(todo, workers.each(run_heat, todo), strict=True)
