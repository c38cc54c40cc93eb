"""Summarises the visits: medians and ranges, ratios within rounds, and which promises are kept."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.service.contenders import OURS, PEERS, Contender
from benchmarks.service.visits import ALONE, BUSY, CASES, ROWS, Case, Result, Visit


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, lowest and highest value of the rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Promise:
    """A limit that the service promises to keep, and what was measured."""

    title: str
    limit: float
    is_floor: bool  # the measured median must be at least, not at most, the limit
    unit: str
    measured: Spread | None  # None: not measured here

    @property
    def is_kept(self) -> bool | None:
        if self.measured is None:
            return None
        median = self.measured.median
        return median >= self.limit if self.is_floor else median <= self.limit


@dataclass(frozen=True, slots=True)
class CaseScore:
    """One contender under one load."""

    requests_per_s: Spread
    p50_ms: Spread
    p99_ms: Spread
    cpu_us: Spread
    advantage: Spread  # our requests per second divided by its own, round by round


@dataclass(frozen=True, slots=True)
class Score:
    """One contender."""

    contender: Contender
    startup_s: Spread
    memory_mb: Spread
    worker_mb: Spread
    cases: dict[str, CaseScore]  # by the key of the case


def spread(values: Iterable[float]) -> Spread:
    """Median and range of at least one value."""
    found = sorted(values)
    return Spread(statistics.median(found), found[0], found[-1])


def scores(visits: Iterable[Visit]) -> list[Score]:
    """One score for each visited contender: ours first, then the peers in their order."""
    by_key: defaultdict[str, list[Visit]] = defaultdict(list)
    for visit in visits:
        by_key[visit.contender.key].append(visit)
    ours = by_key[OURS.key]
    return [_score(contender, by_key[contender.key], ours) for contender in (OURS, *PEERS) if contender.key in by_key]


def promises(visits: Sequence[Visit]) -> list[Promise]:
    """Every promise, measured or not."""
    advantages = {score.contender.key: score.cases[BUSY.key].advantage for score in scores(visits)}
    ours = [visit for visit in visits if visit.contender is OURS]
    alone = [visit.results[ALONE.key].load for visit in ours]
    shares = [
        visit.results[ROWS.key].load.requests_per_s * ROWS.rows / visit.raw_rows_per_s
        for visit in ours
        if visit.raw_rows_per_s
    ]
    gateway_ms = [visit.gateway_ms for visit in ours if visit.gateway_ms is not None]
    titles = {contender.key: contender.title for contender in PEERS}
    return [
        *(
            Promise(f"requests/s over {titles[key]}, {BUSY.title}", limit, True, "x", advantages.get(key))
            for key, limit in (("bentoml", 6.0), ("flask", 2.0), ("litserve", 3.0), ("starlette", 0.9))
        ),
        Promise(f"p99 over p50, {ALONE.title}", 5.0, False, "x", spread(load.p99_us / load.p50_us for load in alone)),
        Promise(f"rows/s over the model alone, {ROWS.title}", 0.6, True, "x", spread(shares) if shares else None),
        Promise("added by the gateway at p50, c=8", 1.0, False, " ms", spread(gateway_ms) if gateway_ms else None),
    ]


def _score(contender: Contender, visits: Sequence[Visit], ours: Sequence[Visit]) -> Score:
    return Score(
        contender,
        startup_s=spread(visit.startup_s for visit in visits),
        memory_mb=spread(visit.memory_mb for visit in visits),
        worker_mb=spread(visit.worker_mb for visit in visits),
        cases={case.key: _case_score(case, visits, ours) for case in CASES},
    )


def _case_score(case: Case, visits: Sequence[Visit], ours: Sequence[Visit]) -> CaseScore:
    def of(measure: Callable[[Result], float]) -> Spread:
        return spread(measure(visit.results[case.key]) for visit in visits)

    our_rates = {visit.round: visit.results[case.key].load.requests_per_s for visit in ours}
    return CaseScore(
        requests_per_s=of(lambda result: result.load.requests_per_s),
        p50_ms=of(lambda result: result.load.p50_us / 1e3),
        p99_ms=of(lambda result: result.load.p99_us / 1e3),
        cpu_us=of(lambda result: result.cpu_us),
        advantage=spread(
            our_rates[visit.round] / visit.results[case.key].load.requests_per_s
            for visit in visits
            if visit.round in our_rates
        ),
    )
