"""The judge alone, looking at traffic whose weights are given: when does it FAIL?

Called by `bars`. There are no steps and no decisions, so that what is measured is the test and nothing else.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rollout.judge import Judge, JudgeConfig, Verdict, Window, dispersion
from rollout.pace import HISTORY_S
from rollout.simulation.traffic import Scenario, Traffic

_LOOKED_AT = 12  # windows between two looks at the verdict; it remembers when it fell


@dataclass(frozen=True, slots=True)
class Trial:
    """A canary under observation. Signals for which `config` has no rule are not looked at."""

    scenario: Scenario
    weights: tuple[tuple[float, float], ...]  # (canary share of the requests, seconds), one after another
    config: JudgeConfig
    is_calibrated: bool = False  # whether phi is measured on stable's history, or taken as 1
    shares_phi: bool = False  # one phi, the largest, for all signals


def failed_after_s(trial: Trial, seed: int | tuple[int, ...]) -> float:
    """Seconds from `harm_after_s` of the scenario to FAIL; inf for never, negative for too early."""
    traffic = Traffic(trial.scenario, seed)
    history = traffic.history(HISTORY_S) if trial.is_calibrated else {}
    phi = {signal: dispersion(windows) for signal, windows in history.items()}
    if trial.shares_phi:
        phi = dict.fromkeys(phi, max(phi.values()))
    judge = Judge(trial.config, phi)
    began_s = traffic.now_s + trial.scenario.harm_after_s
    for windows in _batches(trial, traffic):
        judge.observe(window for window in windows if window.signal.partition(":")[0] in trial.config.rules)
        judgement = judge.judgement(next_weight=None)
        if judgement.verdict is Verdict.FAIL:
            return min(signal.decided_at_s or math.inf for signal in judgement.signals.values()) - began_s
    return math.inf


def _batches(trial: Trial, traffic: Traffic) -> Iterator[list[Window]]:
    for weight, seconds in trial.weights:
        windows = round(seconds / trial.scenario.window_s)
        for first in range(0, windows, _LOOKED_AT):
            ticks = range(first, min(first + _LOOKED_AT, windows))
            yield [window for _ in ticks for window in traffic.window(weight)]
