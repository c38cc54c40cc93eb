"""Bursts and retries of one version's own: what they would do to the judge, and what phi leaves of it.

A chapter of `noise`. The dispersion is measured as the controller does it: on half an hour of stable alone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean

from rollout.judge import DEFAULT_RULES, JudgeConfig, Pair, dispersion
from rollout.judge.bets import bets_for
from rollout.judge.bound import ExcessBound
from rollout.pace import HISTORY_S
from rollout.simulation.noise_tables import heading, often, row, times
from rollout.simulation.parallel import Workers
from rollout.simulation.release import Seed
from rollout.simulation.traffic import Behaviour, Scenario, Traffic
from rollout.simulation.trial import Trial, failed_after_s
from rollout.simulation.weather import Noise
from rollout.spec import RolloutSpec

RAMP = tuple((weight, 900.0) for weight in (0.01, 0.05, 0.25, 0.5))
_TENTH = ((0.1, 3600.0),)
_CONFIG = RolloutSpec().judge_config()
ERRORS = replace(_CONFIG, rules={"errors": replace(DEFAULT_RULES["errors"], budgeted=False)})
_LATENCY = replace(_CONFIG, rules={"latency": DEFAULT_RULES["latency"]})
_EXCESS = 0.005
_BOUNDS_MS = (25, 50, 100, 250, 500, 1000)

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

No test that counts events can tell a cluster from harm. phi is the variance of stable's counts over that of independent
requests, between neighbouring blocks of 5, 20 and 60 s, less what chance explains; each log e-value is divided by it.
A harmless canary, errors 1 %, 20 requests a second, the ramp; failed in {releases} releases each, and the mean phi."""

_BOUND = """
The bound that every step rests on: how often is it ever below the true excess of 0.5 %? At most 1 % is the promise.
The same traffic, the canary fails 1.5 %."""

_BUCKETS = """
Slow periods of one version's own, of 30 s: latency buckets alone are judged at 10 % (log-normal around 80 ms). A
harmless canary in 100 releases; and seconds until 500 ms more on 5 % of the requests are found, median and p90.
*One phi*: the largest of all buckets for each of them, which is as safe and finds nothing."""


def chapter(workers: Workers, releases: int, seeds: Sequence[Seed]) -> Iterator[str]:
    """Lines of Markdown."""
    yield _FALSE_ALARMS.format(releases=releases)
    yield heading("noise", "mean phi", "phi 1", "phi measured")
    for name, noise in NOISES:
        trial = Trial(_errors(noise), RAMP, ERRORS)
        phi = fmean(workers.each(partial(measured_phi, trial.scenario), seeds[:100]))
        yield row(name, f"{phi:.2f}", *(often(_failed(workers, one, seeds)) for one in _uncalibrated_and_not(trial)))
    yield _BOUND
    yield heading("noise", "phi 1", "phi measured")
    for name, noise in NOISES:
        wrong = zip(*workers.each(partial(was_bound_wrong, _errors(noise, _EXCESS)), seeds), strict=True)
        yield row(name, *(often(one) for one in wrong))
    yield _BUCKETS
    yield heading("", "phi 1", "phi of each bucket", "one phi")
    for icc in (0.0, 0.02, 0.1):
        noise = Noise(own_icc=icc, burst_s=30)
        alone, slower = _slow(noise), _slow(noise, more=0.05)
        ways = [(False, False), (True, False), (True, True)]
        trials = [Trial(alone, _TENTH, _LATENCY, *way) for way in ways]
        found = [Trial(slower, _TENTH, _LATENCY, *way) for way in ways]
        yield row(f"ICC {icc:g}: harmless, failed", *(often(_failed(workers, trial, seeds[:100])) for trial in trials))
        yield row(f"ICC {icc:g}: found after", *(times(_times(workers, trial, seeds[:100])) for trial in found))


def measured_phi(scenario: Scenario, seed: Seed) -> float:
    """Dispersion of the errors in one history."""
    return dispersion(Traffic(scenario, seed).history(HISTORY_S)["errors"])


def was_bound_wrong(scenario: Scenario, seed: Seed) -> tuple[bool, bool]:
    """Whether the bound was ever below the true excess in one release, with phi 1 and with phi measured."""
    traffic, alpha = Traffic(scenario, seed), JudgeConfig().alpha_pass
    excess = scenario.canary.error_ratio - scenario.stable.error_ratio
    history = traffic.history(HISTORY_S)["errors"]
    bets = bets_for(_CONFIG.risk_budget, sum((window.stable for window in history), Pair(0, 0)))
    bounds = [ExcessBound(alpha, phi=phi, bets=bets) for phi in (1.0, dispersion(history))]
    wrong = [False, False]
    for weight, seconds in RAMP:
        for _ in range(round(seconds / scenario.window_s)):
            for errors in traffic.window(weight):
                for i, bound in enumerate(bounds):
                    bound.observe(errors.stable, errors.canary)
                    wrong[i] = wrong[i] or bound.log_e(excess) >= -math.log(alpha)
    return wrong[0], wrong[1]


def _uncalibrated_and_not(trial: Trial) -> tuple[Trial, Trial]:
    return trial, replace(trial, is_calibrated=True)


def _times(workers: Workers, trial: Trial, seeds: Sequence[Seed]) -> list[float]:
    return list(workers.each(partial(failed_after_s, trial), seeds))


def _failed(workers: Workers, trial: Trial, seeds: Sequence[Seed]) -> list[bool]:
    return [math.isfinite(at_s) for at_s in _times(workers, trial, seeds)]


def _errors(noise: Noise, excess: float = 0.0) -> Scenario:
    return Scenario(20, Behaviour(0.01), Behaviour(0.01 + excess), noise=noise)


def _slow(noise: Noise, *, more: float = 0.0) -> Scenario:
    """Latencies around 80 ms; on the canary a share of `more` takes 500 ms longer."""
    slow = [(bound, math.erfc(math.log(bound / 80) / (0.5 * math.sqrt(2))) / 2) for bound in _BOUNDS_MS]
    slower = tuple((bound, ratio + more * (1 - ratio) * (bound <= 500)) for bound, ratio in slow)
    return Scenario(20, Behaviour(slow_ratios=tuple(slow)), Behaviour(slow_ratios=slower), noise=noise)
