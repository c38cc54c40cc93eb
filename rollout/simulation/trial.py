"""The judge alone, looking at traffic whose weights are given: when does it FAIL?

Called by `bars`. There are no steps and no decisions, so that what is measured is the test and nothing else.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rollout.controller import HISTORY_S
from rollout.judge import Judge, JudgeConfig, Verdict, Window, dispersion
from rollout.simulation.traffic import Scenario, Traffic

_LOOKED_AT = 12  # windows between two looks at the verdict; it remembers when it fell


@dataclass(frozen=True, slots=True)
class Trial:
    """A canary under observation."""

    scenario: Scenario
    weights: tuple[tuple[float, float], ...]  # (canary share of the requests, seconds), one after another
    config: JudgeConfig = JudgeConfig()
    is_calibrated: bool = False  # whether phi is measured on stable's history, or taken as 1


def failed_after_s(trial: Trial, seed: int | tuple[int, ...]) -> float:
    """Seconds from the beginning of the harm to FAIL; inf for never. With no harm, from the first request."""
    traffic = Traffic(trial.scenario, seed)
    history = traffic.history(HISTORY_S) if trial.is_calibrated else {}
    judge = Judge(trial.config, {signal: dispersion(windows) for signal, windows in history.items()})
    began_s = traffic.now_s + (trial.scenario.harm_after_s if trial.scenario.harm else 0.0)
    for ticks in _batches(trial, traffic):
        judge.observe(ticks)
        judgement = judge.judgement(next_weight=None)
        if judgement.verdict is Verdict.FAIL:
            decided = [signal.decided_at_s for signal in judgement.signals.values() if signal.decided_at_s]
            return min(decided) - began_s
    return math.inf


def _batches(trial: Trial, traffic: Traffic) -> Iterator[list[Window]]:
    for weight, seconds in trial.weights:
        windows = round(seconds / trial.scenario.window_s)
        for first in range(0, windows, _LOOKED_AT):
            ticks = range(first, min(first + _LOOKED_AT, windows))
            yield [window for _ in ticks for window in traffic.window(weight)]
