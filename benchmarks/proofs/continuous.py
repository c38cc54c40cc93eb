"""`python -m benchmarks continuous`: comparing means of numbers: false alarms, limits, and how soon harm is found.

The judge's own evidence (`rollout.judge.number_evidence`) gets every simulated window. The page compares it with what
people do with a chart of two means: a z-test after every window.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import lognorm

from benchmarks.output import FOLDER, Jobs, Out, Write
from benchmarks.proofs.cells import often
from benchmarks.proofs.sections import Scale, Section, page_command, publish, simulated, workers_for
from rollout.format import share
from rollout.judge import JudgeConfig, Pair, Window, own_noise
from rollout.judge.number_evidence import NumberEvidence
from rollout.judge.own_noise import INDEPENDENT
from rollout.judge.types import BothNumbers, NumberRule, Numbers, SignalRule
from rollout.signals.options import LATENCY_STEPS_MS, STEPS_PER_TENFOLD
from rollout.simulate.parallel import Workers
from rollout.simulate.summary import quantile

PAGE = "continuous.md"
_WINDOW_S, _WINDOWS = 5.0, 120
_HISTORY = 360  # windows before the release
_RELEASES, _FEW_RELEASES = 1000, 100
_REQUESTS = 500.0  # a window, on average
_SEED = 2024
_CONFIG = JudgeConfig()
_LOOK = 10  # windows between two looks at the limits
_Z = 2.326  # 1 %, one-sided
_FEWEST = 2  # numbers that have a variance
_NONE = Numbers(0, 0.0, 0.0)
FACTORS = (1.02, 1.1, 1.25)
TOLERANCE = 1.05  # the default of `typical_latency`

Floats = NDArray[np.float64]
Quantiles = Callable[[Floats], Floats]  # numbers at these shares, 0 to 1


@dataclass(frozen=True, slots=True)
class Kind:
    """A distribution of numbers on a grid, as a service's counters hold it."""

    name: str
    values: Floats  # rising
    shares: Callable[[float], Floats]  # of each value, by the factor of harm
    between: tuple[float, float]
    per_tenfold: float | None = None

    def rule(self, tolerance: float = 0.0) -> SignalRule:
        """A rule that compares means. It does not take part in FAIL, which does not change its evidence."""
        numbers = NumberRule(self.between, tolerance=tolerance, per_tenfold=self.per_tenfold)
        return SignalRule("means", 0.0, numbers=numbers)

    def tolerance(self, ratio: float) -> float:
        """The difference of means that is a factor of `ratio`."""
        if self.per_tenfold is not None:
            return self.per_tenfold * math.log10(ratio)
        return (ratio - 1) * float(self.values @ self.shares(1.0))


def latencies(name: str, quantiles: Quantiles) -> Kind:
    """Answer times as the gateway's histogram has them: the number is how many of its bounds the time exceeds."""
    of_each = quantiles((np.arange(20_000) + 0.5) / 20_000)

    def shares(factor: float) -> Floats:
        steps = np.searchsorted(LATENCY_STEPS_MS, of_each * factor)
        counted: Floats = np.bincount(steps, minlength=len(LATENCY_STEPS_MS) + 1) / len(of_each)
        return counted

    most = len(LATENCY_STEPS_MS)
    return Kind(name, np.arange(most + 1.0), shares, (0.0, float(most)), STEPS_PER_TENFOLD)


def _leaf(share: Floats) -> Floats:
    """Dean & Barroso 2013, table 1: one leaf answers in 1, 5 and 10 ms at the quantiles 50, 95 and 99 %; here x 20."""
    known = [(1e-5, 0.2), (0.5, 1.0), (0.95, 5.0), (0.99, 10.0), (0.9999, 100.0)]
    odds = [math.log(1 - at) for at, _ in known]
    times = np.interp(-np.log1p(-share), [-each for each in odds], [math.log(ms) for _, ms in known])
    return 20 * np.exp(times)


def _bimodal(share: Floats) -> Floats:
    """Seven of ten answers from a cache in 4 ms, the others in 90 ms."""
    hits = lognorm.ppf(np.minimum(share / 0.7, 1 - 1e-9), 0.2, scale=4)
    misses = lognorm.ppf(np.clip((share - 0.7) / 0.3, 1e-9, 1 - 1e-9), 0.3, scale=90)
    times: Floats = np.where(share < 0.7, hits, misses)
    return times


def _log_normal(share: Floats, *, median_ms: float, sigma: float) -> Floats:
    found: Floats = lognorm.ppf(share, sigma, scale=median_ms)
    return found


def _diabetes() -> Kind:
    """Disease progression of 442 patients (Efron et al. 2004), as scikit-learn has it: 25 to 346, here up to 400."""
    from sklearn.datasets import load_diabetes  # noqa: PLC0415 - `--help` works without it

    values, counts = np.unique(load_diabetes().target, return_counts=True)
    grid = np.unique(np.concatenate([np.minimum(values * factor, 400.0) for factor in (1.0, *FACTORS)]))

    def shares(factor: float) -> Floats:
        at = np.searchsorted(grid, np.minimum(values * factor, 400.0))
        counted: Floats = np.bincount(at, weights=counts, minlength=len(grid)) / counts.sum()
        return counted

    return Kind("scores: diabetes", grid, shares, (0.0, 400.0))


def _rare(share: Floats) -> Floats:
    """One answer in two hundred takes a thousand times as long."""
    times: Floats = np.where(share < 0.995, 1.0, 1000.0) * _log_normal(share / 0.995 % 1, median_ms=5, sigma=0.1)
    return times


USUAL = "log-normal, sigma 0.5"


@lru_cache
def kinds() -> dict[str, Kind]:
    """All distributions of the page, by name."""
    every = (
        latencies("narrow: log-normal, sigma 0.05", partial(_log_normal, median_ms=50, sigma=0.05)),
        latencies(USUAL, partial(_log_normal, median_ms=50, sigma=0.5)),
        latencies("bimodal: a cache", _bimodal),
        latencies("a leaf of Dean & Barroso", _leaf),
        latencies("1 of 200 is 1,000 times slower", _rare),
        _diabetes(),
    )
    return {kind.name: kind for kind in every}


@dataclass(frozen=True, slots=True)
class Case:
    """One simulated release: ten minutes of 100 requests a second, a tenth of them to the canary."""

    kind: str
    factor: float = 1.0  # of canary's numbers to stable's
    tolerance: float = 1.0  # harmless factor
    wander: float = 0.0  # standard deviation of each version's own log speed; a deviation lasts about half a minute
    is_calibrated: bool = False  # whether noise is measured on half an hour of stable before
    is_ramp: bool = False  # everything gets three times slower while the canary's share rises from 1 to 50 %

    @property
    def is_identical(self) -> bool:
        """Whether the versions do not differ."""
        return self.factor == 1


@dataclass(frozen=True, slots=True)
class Found:
    """How one release went."""

    noticed_s: float  # inf: never
    is_missed: bool  # whether the limits ever left out the true difference
    z_s: float  # when a z-test of all numbers so far, at 1 % after every window, would notice; inf: never


def found(case: Case, seed: int) -> Found:
    """Simulate and judge one release."""
    rng, kind = np.random.default_rng((_SEED, seed)), kinds()[case.kind]
    tolerated = kind.tolerance(case.tolerance)
    rule = kind.rule(tolerated)
    noise = own_noise([*_windows(rng, case, _HISTORY, np.zeros(_HISTORY))]) if case.is_calibrated else INDEPENDENT
    evidence = NumberEvidence("numbers", rule, rule.numbers or NumberRule((0, 1)), _CONFIG, noise=noise)
    truth = float(kind.values @ (_shares(case.kind, round(1000 * math.log(case.factor))) - _shares(case.kind, 0)))
    is_missed, z_s, stable, canary = False, math.inf, _NONE, _NONE
    weights = np.repeat((0.01, 0.05, 0.25, 0.5), _WINDOWS // 4) if case.is_ramp else np.full(_WINDOWS, 0.1)
    for number, window in enumerate(_windows(rng, case, _WINDOWS, weights), 1):
        evidence.observe(window)
        if evidence.decided_at_s and not case.is_identical:
            break
        if window.numbers:
            stable, canary = stable + window.numbers.stable, canary + window.numbers.canary
        if math.isinf(z_s) and _z(stable, canary, tolerated) > _Z:
            z_s = number * _WINDOW_S
        if number % _LOOK == 0 and not case.wander and not case.is_ramp:
            is_missed = is_missed or not evidence.difference.least <= truth <= evidence.difference.most
    return Found(evidence.decided_at_s or math.inf, is_missed, z_s)


def _z(stable: Numbers, canary: Numbers, tolerated: float) -> float:
    """The difference beyond what is tolerated, in its standard deviations."""
    if min(stable.total, canary.total) < _FEWEST:
        return 0.0
    variance = sum((each.squares / each.total - each.mean**2) / (each.total - 1) for each in (stable, canary))
    return (canary.mean - stable.mean - tolerated) / math.sqrt(variance) if variance > 0 else 0.0


def _windows(rng: np.random.Generator, case: Case, windows: int, weights: Floats) -> Iterator[Window]:
    slower = np.linspace(1.0, 3.0, windows) if case.is_ramp else np.ones(windows)
    stable, canary = (
        _sums(
            rng,
            case.kind,
            rng.poisson(_REQUESTS * shares),
            factor * slower * _wander(rng, case.wander, windows),
        )
        for factor, shares in ((1.0, 1 - weights), (case.factor, weights))
    )
    for i, both in enumerate(map(BothNumbers, stable, canary)):
        pairs = Pair(0, both.stable.total), Pair(0, both.canary.total)
        yield Window(_WINDOW_S * (i + 1), _WINDOW_S, "numbers", *pairs, both)


def _sums(rng: np.random.Generator, name: str, counts: NDArray[np.int64], factors: Floats) -> Iterator[Numbers]:
    """One side's numbers in each window."""
    kind, steps = kinds()[name], np.round(1000 * np.log(factors)).astype(int).tolist()
    drawn = np.stack([rng.multinomial(n, _shares(name, each)) for n, each in zip(counts, steps, strict=True)])
    columns = (counts.tolist(), (drawn @ kind.values).tolist(), (drawn @ kind.values**2).tolist())
    return map(Numbers, *columns)


@lru_cache(maxsize=4000)
def _shares(name: str, thousandths: int) -> Floats:
    """The share of each value when all logarithms are larger by this; whole thousandths, so that few are computed."""
    return kinds()[name].shares(math.exp(thousandths / 1000))


def _wander(rng: np.random.Generator, deviation: float, windows: int) -> Floats:
    """A version's speed in each window: log-normal; a deviation lasts about half a minute."""
    if not deviation:
        return np.ones(windows)
    memory = math.exp(-_WINDOW_S / 30)
    steps = rng.normal(0, deviation * math.sqrt(1 - memory**2), windows)
    steps[0] = rng.normal(0, deviation)
    speeds: Floats = np.exp(lfilter([1.0], [1.0, -memory], steps))
    return speeds


_TEXT = """
# Comparing means

Written by `{command}`.

A signal may be a number of each request: its answer time, a score, a cost. This page simulates releases of ten
minutes at 100 requests a second. The canary gets a tenth of them. The means of both versions are compared after every
window of 5 s, as the judge does it: from counts, sums and sums of squares
([decision 33](../decisions/0033-means-of-numbers.md)). Answer times are sorted into buckets whose bounds are 12 %
apart, from 1 ms to 10 s. The mean of their logarithms is compared, so that a factor means the same everywhere.

*A leaf of Dean & Barroso*: one server's answer times as published in "The Tail at Scale" (2013, table 1: half within
1 ms, 95 % within 5, 99 % within 10), times 20. *Diabetes*: the disease progression of 442 patients (Efron et al. 2004,
bundled with scikit-learn) as a score from 0 to 400. *z-test*: the usual comparison of two means at 1 %, repeated after
every window with all numbers so far.

## Identical versions

{releases} releases each; no difference is tolerated. *Called worse*: how often a canary that is not worse was called
worse (the promise is at most 1 %). *Limits ever wrong*: how often the limits of the difference (1 % on each side) ever
excluded the true one. *Slower while the weight rises*: both versions get three times slower while the canary's share
goes from 1 to 50 %."""

_POWER_TEXT = """
## Slower versions

{releases} releases each; {tolerance} more is tolerated. Seconds until the judge notices: median / 90th percentile."""

_NOISE_TEXT = """
## Versions that wander

Two identical processes are not equally fast. Here the speed of each varies by itself, and a deviation lasts about half
a minute. {releases} releases each; {tolerance} more is tolerated. *Calibrated*: noise was measured on half an hour of
stable before, as in every release. Nothing is proven about noise."""


def _identical(releases: int, workers: Workers) -> Iterator[Sequence[str]]:
    cases = [(kind, Case(kind)) for kind in kinds()]
    for name, case in (*cases, (f"{USUAL}, slower while the weight rises", Case(USUAL, is_ramp=True))):
        runs = _runs(case, releases, workers)
        missed = "" if case.is_ramp else often([run.is_missed for run in runs])
        z_test = often([math.isfinite(run.z_s) for run in runs])
        yield name, often([math.isfinite(run.noticed_s) for run in runs]), missed, z_test


def _slower(releases: int, workers: Workers) -> Iterator[Sequence[str]]:
    for kind in kinds():
        for factor in FACTORS:
            runs = _runs(Case(kind, factor, tolerance=TOLERANCE), releases, workers)
            noticed = [run.noticed_s for run in runs]
            yield kind, f"{factor:g}", often([math.isfinite(each) for each in noticed]), _times(noticed)


def _wandering(releases: int, workers: Workers) -> Iterator[Sequence[str]]:
    for wander in (0.05, 0.1):
        for factor in (1.0, 1.25):
            both = (_runs(Case(USUAL, factor, TOLERANCE, wander, known), releases, workers) for known in (False, True))
            yield (
                share(wander),
                f"{factor:g}",
                *(often([math.isfinite(run.noticed_s) for run in runs]) for runs in both),
            )


def _runs(case: Case, releases: int, workers: Workers) -> list[Found]:
    return list(workers.each(partial(found, case), range(releases)))


def _times(times_s: Sequence[float]) -> str:
    values = [quantile(times_s, q).value for q in (0.5, 0.9)]
    return " / ".join(f"{value:.0f}" if math.isfinite(value) else "never" for value in values)


def continuous(scale: Scale = 1.0, write: Write = False, out: Out = FOLDER, jobs: Jobs = None) -> None:
    """Compare means of numbers after every window: false alarms, limits, and how soon harm is found.

    Prints the page as Markdown without `--write`.
    """
    many, few = (max(1, round(scale * releases)) for releases in (_RELEASES, _FEW_RELEASES))
    tolerance = share(TOLERANCE - 1)
    with workers_for(jobs) as workers:
        sections = (
            Section(
                _TEXT.format(command=page_command("continuous", scale), releases=f"{many:,}"),
                ("numbers", "called worse", "limits ever wrong", "z-test: called worse"),
                _identical(many, workers),
            ),
            Section(
                _POWER_TEXT.format(releases=few, tolerance=tolerance),
                ("numbers", "factor", "noticed in ten minutes", "seconds"),
                _slower(few, workers),
            ),
            Section(
                _NOISE_TEXT.format(releases=few, tolerance=tolerance),
                ("wanders by", "factor", "noticed, noise not known", "noticed, calibrated"),
                _wandering(few, workers),
            ),
        )
        publish(map(simulated, sections), PAGE, out, write=write)
