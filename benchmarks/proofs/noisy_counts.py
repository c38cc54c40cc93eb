"""Bursts and retries in one version only: their effect on the judge, and how much of it phi leaves.

The dispersion is measured as the controller measures it: on half an hour of stable alone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean

from benchmarks.proofs.cells import often, times
from benchmarks.proofs.sections import Section
from benchmarks.proofs.trial import Trial, failed_after_s, flat_noise
from rollout.control.calibration import HISTORY_S
from rollout.judge import JudgeConfig, OwnNoise, Pair, dispersion, own_noise
from rollout.judge.bets import bets_for
from rollout.judge.bound import ExcessBound
from rollout.signals.catalogue import catalogue
from rollout.signals.options import Latency
from rollout.simulate.noise import Noise
from rollout.simulate.parallel import Workers
from rollout.simulate.release import Seed
from rollout.simulate.traffic import Behaviour, Scenario, Traffic
from rollout.spec import RolloutSpec

RAMP = tuple((weight, 900.0) for weight in (0.01, 0.05, 0.25, 0.5))
_TENTH = ((0.1, 3600.0),)
_CONFIG = RolloutSpec().judge_config()
ERRORS = replace(_CONFIG, rules={"errors": replace(catalogue().rules["errors"], budgeted=False)})
_LATENCY = replace(_CONFIG, rules={"latency": catalogue().rules["latency"]})
_EXCESS = 0.005

NOISES = (
    ("none: independent requests", Noise()),
    ("bursts of 5 s, ICC 0.01", Noise(own_icc=0.01)),
    ("bursts of 5 s, ICC 0.05", Noise(own_icc=0.05)),
    ("bursts of 30 s, ICC 0.05", Noise(own_icc=0.05, burst_s=30)),
    ("retries, clusters of 2", Noise(retries=2)),
    ("retries, clusters of 4", Noise(retries=4)),
)

_FALSE_ALARMS = """
## phi: bursts and retries in one version

No test that counts events can tell a cluster from harm. phi is the variance of stable's counts, between neighbouring
blocks of 5, 20 and 60 s, divided by that of independent requests, less what chance explains; each log e-value is
divided by phi. *All of it*: the phi of the whole history, at every share of the traffic. *Own noise*: what the history
says about the noise between two versions at the canary's share. The canary is harmless: errors 1 %, 20 requests a
second, the ramp. The table shows the mean phi of the whole history, and in how many of {releases} releases the judge
failed the canary."""

_BOUND = """
Every step depends on the bound on the excess. How often is this bound ever below the true excess of 0.5 %? The promise
is at most 1 %. The traffic is the same, but the canary fails 1.5 % of its requests."""

_BUCKETS = """
Slow periods of 30 s hit one version only. Only latency buckets are judged, at 10 % (log-normal around 80 ms). The table
shows how often the judge failed a harmless canary in {releases} releases, and the seconds until 500 ms more on 5 % of
the requests were found, median and p90. *Of the noisiest*: the noise of the noisiest bucket is used for each bucket,
which is as safe but finds harm too late."""


def sections(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Section]:
    """False alarms by phi, the bound on the excess, and latency buckets; one release for each seed."""
    releases, few = len(seeds), seeds[:100]
    ways = ("phi 1", "all of it", "own noise")
    yield Section(_FALSE_ALARMS.format(releases=releases), ("noise", "mean phi", *ways), _false_alarms(workers, seeds))
    yield Section(_BOUND, ("noise", *ways), _bounds(workers, seeds))
    heads = ("", "phi 1", "noise of each bucket", "of the noisiest")
    yield Section(_BUCKETS.format(releases=len(few)), heads, _buckets(workers, few))


def _false_alarms(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Sequence[str]]:
    for name, noise in NOISES:
        trial = Trial(_errors(noise), RAMP, ERRORS)
        phi = fmean(workers.each(partial(measured_phi, trial.scenario), seeds[:100]))
        measured = replace(trial, is_calibrated=True)
        trials = (trial, replace(measured, is_flat=True), measured)
        yield name, f"{phi:.2f}", *(often(_failed(workers, one, seeds)) for one in trials)


def _bounds(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Sequence[str]]:
    for name, noise in NOISES:
        wrong = zip(*workers.each(partial(was_bound_wrong, _errors(noise, _EXCESS)), seeds), strict=True)
        yield name, *(often(one) for one in wrong)


def _buckets(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Sequence[str]]:
    for icc in (0.0, 0.02, 0.1):
        noise = Noise(own_icc=icc, burst_s=30)
        harmless, slower = (
            [
                Trial(_slow(noise, more=more), _TENTH, _LATENCY),
                Trial(_slow(noise, more=more), _TENTH, _LATENCY, is_calibrated=True),
                Trial(_slow(noise, more=more), _TENTH, _LATENCY, is_calibrated=True, shares_noise=True),
            ]
            for more in (0, 0.05)
        )
        yield f"ICC {icc:g}: harmless, failed", *(often(_failed(workers, trial, seeds)) for trial in harmless)
        yield f"ICC {icc:g}: found after", *(times(_times(workers, trial, seeds)) for trial in slower)


def measured_phi(scenario: Scenario, seed: Seed) -> float:
    """Dispersion of the errors in one history."""
    return dispersion(Traffic(scenario, seed).history(HISTORY_S)["errors"])


def was_bound_wrong(scenario: Scenario, seed: Seed) -> tuple[bool, bool, bool]:
    """Whether the bound was ever below the true excess in one release: not tempered, by all noise, by own noise."""
    traffic, alpha = Traffic(scenario, seed), JudgeConfig().alpha_pass
    excess = scenario.canary.error_ratio - scenario.stable.error_ratio
    history = traffic.history(HISTORY_S)["errors"]
    bets = bets_for(_CONFIG.risk_budget, sum((window.stable for window in history), Pair(0, 0)))
    noises = (OwnNoise(), flat_noise(history), own_noise(history))
    bounds = [ExcessBound(alpha, noise=noise, bets=bets) for noise in noises]
    wrong = [False] * len(bounds)
    for weight, seconds in RAMP:
        for _ in range(round(seconds / scenario.window_s)):
            for errors in traffic.window(weight):
                for i, bound in enumerate(bounds):
                    bound.observe(errors.stable, errors.canary)
                    wrong[i] = wrong[i] or bound.log_e(excess) >= -math.log(alpha)
    return wrong[0], wrong[1], wrong[2]


def _times(workers: Workers, trial: Trial, seeds: Sequence[Seed]) -> list[float]:
    return list(workers.each(partial(failed_after_s, trial), seeds))


def _failed(workers: Workers, trial: Trial, seeds: Sequence[Seed]) -> list[bool]:
    return [math.isfinite(at_s) for at_s in _times(workers, trial, seeds)]


def _errors(noise: Noise, excess: float = 0.0) -> Scenario:
    return Scenario(20, Behaviour(0.01), Behaviour(0.01 + excess), noise=noise)


def _slow(noise: Noise, *, more: float = 0.0) -> Scenario:
    """Latencies around 80 ms; on the canary a share of `more` takes 500 ms longer."""
    slow = [(bound, math.erfc(math.log(bound / 80) / (0.5 * math.sqrt(2))) / 2) for bound in Latency().slower_than_ms]
    slower = tuple((bound, ratio + more * (1 - ratio) * (bound <= 500)) for bound, ratio in slow)
    return Scenario(20, Behaviour(slow_ratios=tuple(slow)), Behaviour(slow_ratios=slower), noise=noise)
