"""The judge alone on traffic with given weights: when does it FAIL?

There are no steps and no decisions, so that only the test is measured.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rollout.control.calibration import HISTORY_S
from rollout.judge import JudgeConfig, OwnNoise, Verdict, Window, dispersion, own_noise
from rollout.judge.judge import Judge
from rollout.judge.kernels import rare
from rollout.judge.logarithms import log_sum
from rollout.simulate.traffic import Scenario, Traffic

_WINDOWS_PER_VERDICT = 12  # windows between two readings of the verdict, which has the time when it was reached


@dataclass(frozen=True, slots=True)
class Trial:
    """A canary that is judged. Signals for which `config` has no rule are ignored."""

    scenario: Scenario
    weights: tuple[tuple[float, float], ...]  # (canary share of the requests, seconds), one after another
    config: JudgeConfig
    is_calibrated: bool = False  # whether noise is measured on stable's history; if not, the judge is told of none
    is_flat: bool = False  # whether the same noise is assumed at every share of the traffic
    shares_noise: bool = False  # whether the noise of the noisiest signal is used for all
    unmeasured: frozenset[str] = frozenset()  # signals whose noise is not given to the judge


def flat_noise(history: Sequence[Window]) -> OwnNoise:
    """All that the history shows, as if it were clusters in one version."""
    return OwnNoise.alike(dispersion(history))


def failed_after_s(trial: Trial, seed: int | tuple[int, ...]) -> float:
    """Seconds from `harm_after_s` of the scenario to FAIL; inf for never, negative for too early."""
    traffic = Traffic(trial.scenario, seed)
    history = traffic.history(HISTORY_S) if trial.is_calibrated else {}
    of_one = flat_noise if trial.is_flat else own_noise
    noise = {signal: of_one(windows) for signal, windows in history.items() if signal not in trial.unmeasured}
    if trial.shares_noise:
        noise = dict.fromkeys(noise, max(noise.values(), key=lambda one: one.blips))
    judge = Judge(trial.config, noise)
    began_s = traffic.now_s + trial.scenario.harm_after_s
    for weight, seconds in trial.weights:
        judge.weight_changed()
        for windows in _batches(traffic, weight, round(seconds / trial.scenario.window_s)):
            judge.observe(window for window in windows if window.signal.partition(":")[0] in trial.config.rules)
            judgement = judge.judgement(next_weight=None)
            if judgement.verdict is Verdict.FAIL:
                return min(signal.decided_at_s or math.inf for signal in judgement.signals.values()) - began_s
    return math.inf


def textbook_failed_after_s(trial: Trial, seed: int | tuple[int, ...]) -> float:
    """Seconds until the errors fail the canary by the textbook test; inf for never.

    It assumes harm from the first window, tolerates nothing and caps nothing. It is only a mixture over the odds ratios
    of the configuration.
    """
    traffic = Traffic(trial.scenario, seed)
    began_s, odds_ratios = traffic.now_s, trial.config.odds_ratios
    log_e = [0.0] * len(odds_ratios)
    for weight, seconds in trial.weights:
        for _ in range(round(seconds / trial.scenario.window_s)):
            (errors,) = traffic.window(weight)
            log_e = [*map(sum, zip(log_e, rare(errors.stable, errors.canary, odds_ratios=odds_ratios), strict=True))]
            if log_sum(log_e) - math.log(len(log_e)) >= -math.log(trial.config.alpha):
                return errors.end_s - began_s
    return math.inf


def _batches(traffic: Traffic, weight: float, windows: int) -> Iterator[list[Window]]:
    for first in range(0, windows, _WINDOWS_PER_VERDICT):
        ticks = range(first, min(first + _WINDOWS_PER_VERDICT, windows))
        yield [window for _ in ticks for window in traffic.window(weight)]
