"""Counters read at the wrong moment: windows that span a change of weight, versions read one after the other.

Both versions have the same bursts at the same time, which is harmless as long as each window covers the same time, at
one weight, for both. Half windows are simulated, so that a window can be composed wrongly.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from benchmarks.proofs.cells import often
from benchmarks.proofs.noisy_counts import ERRORS
from benchmarks.proofs.sections import Section
from rollout.judge import JudgeConfig, Pair, Verdict, Window
from rollout.judge.judge import Judge
from rollout.judge.kernels import rare
from rollout.simulate.parallel import Workers
from rollout.simulate.release import Seed

_HALF_S = 2.5
_RPS = 100.0
_RATIO, _ICC = 0.01, 0.05  # of the errors, and of the bursts that both versions share, each half a window long
_HOUR = 720  # windows
NO_TOLERANCE = replace(ERRORS, rules={"errors": replace(ERRORS.rules["errors"], tolerance=1.0, margin=0.0)})

_TEXT = """
## Reading the counters: one instant, one weight

Both versions share bursts of 2.5 s (ICC 0.05, errors 1 %, 100 requests a second). These are not harm, and they need no
phi if each window covers the same seconds of both versions at one weight. The mean of an e-value must not exceed 1 for
a harmless canary (each capped at 10, {releases} releases of an hour). The tolerance hides the effect of a wrong
reading, but the proof holds only if both versions are read at the same time and windows in which the weight changes are
dropped.
*Failed*: harmless canaries."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to compose windows."""

    name: str
    weights: tuple[float, float] = (0.1, 0.1)  # in the first and in the second half of each window
    lag: int = 0  # half windows by which stable is read later than canary


@dataclass(frozen=True, slots=True)
class Judged:
    """An hour of a harmless canary."""

    mean_e: float
    has_failed: bool


WAYS = (
    Way("10 %, both versions read at one instant"),
    Way("10 %, stable read 2.5 s after canary", lag=1),
    Way("windows in which 5 % become 25 %", weights=(0.05, 0.25)),
    Way("windows in which 1 % become 50 %", weights=(0.01, 0.5)),
)


def sections(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Section]:
    """Each way to compose windows, with one release for each seed."""
    heads = ("", "mean e-value, no tolerance", "with tolerance", "failed, no tolerance", "with tolerance")
    yield Section(_TEXT.format(releases=len(seeds)), heads, _rows(workers, seeds))


def _rows(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Sequence[str]]:
    for way in WAYS:
        plain, default = (list(workers.each(partial(judged, way, config), seeds)) for config in (NO_TOLERANCE, ERRORS))
        has_one_weight = way.weights[0] == way.weights[1]  # a release has at most a dozen windows with two
        failed = [often([one.has_failed for one in found]) if has_one_weight else "" for found in (plain, default)]
        yield way.name, _mean(plain), _mean(default), *failed


def judged(way: Way, config: JudgeConfig, seed: Seed) -> Judged:
    """Judge the windows of one hour, composed in this way."""
    judge, e_values, rule = Judge(config), [], config.rules["errors"]
    margin = config.risk_budget / 10 if rule.margin is None else rule.margin
    for window in _windows(way, np.random.default_rng(seed)):
        log_e = rare(
            window.stable, window.canary, odds_ratios=config.odds_ratios, tolerance=rule.tolerance, margin=margin
        )
        e_values.append(sum(min(config.window_cap, math.exp(one)) for one in log_e) / len(log_e))
        judge.observe([window])
    return Judged(float(np.mean(e_values)), judge.judgement(next_weight=None).verdict is Verdict.FAIL)


def _windows(way: Way, rng: np.random.Generator) -> Iterator[Window]:
    halves = 2 * _HOUR + way.lag
    spread = (1 - _ICC) / _ICC
    ratios = rng.beta(_RATIO * spread, (1 - _RATIO) * spread, halves)
    weights = np.resize(way.weights, halves)
    totals = [rng.poisson(_RPS * _HALF_S * share) for share in (1 - weights, weights)]
    bad = [rng.binomial(total, ratios) for total in totals]

    def pair(version: int, first: int) -> Pair:
        return Pair(int(bad[version][first : first + 2].sum()), int(totals[version][first : first + 2].sum()))

    for number in range(_HOUR):
        yield Window(5.0 * (number + 1), 5.0, "errors", pair(0, 2 * number + way.lag), pair(1, 2 * number))


def _mean(found: Sequence[Judged]) -> str:
    means = [one.mean_e for one in found]
    return f"{np.mean(means):.3f} ± {1.96 * float(np.std(means)) / math.sqrt(len(means)):.3f}"
