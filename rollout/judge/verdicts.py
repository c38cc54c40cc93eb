"""From the evidence of each signal to one verdict and its reason.

FAIL comes first, then NO_DATA; PASS needs that nothing is suspicious and the risk budget holds; else INCONCLUSIVE.
"""

import math
from collections.abc import Mapping

from rollout.judge import words
from rollout.judge.types import JudgeConfig, SignalJudgement, Verdict


def signal_verdict(
    config: JudgeConfig,
    *,
    has_failed: bool,
    has_data: bool,
    log_e: float,
    upper: float | None,
    next_weight: float | None,
) -> Verdict:
    """The verdict of one signal.

    Args:
        upper: bound on the excess of its bad ratio; None where no budget limits it.
        next_weight: canary share of the traffic that is asked for, 0 to 1; None: no step is asked for.
    """
    if has_failed:
        return Verdict.FAIL
    if not has_data:
        return Verdict.NO_DATA
    is_within_budget = upper is None or next_weight is None or next_weight * upper <= config.risk_budget
    return Verdict.PASS if is_within_budget and log_e < math.log(config.amber) else Verdict.INCONCLUSIVE


def overall(
    config: JudgeConfig, signals: Mapping[str, SignalJudgement], next_weight: float | None
) -> tuple[Verdict, str]:
    """The verdict and reason over all signals, where none failed and none that is needed lacks data."""
    name, suspect = max(signals.items(), key=lambda item: item[1].log_e)
    if suspect.log_e >= math.log(config.amber):
        called = words.words_of(name, config.rules.get(name.partition(":")[0]))
        return Verdict.INCONCLUSIVE, words.suspicious(name, called, suspect)
    bounded = {name: signal for name, signal in signals.items() if signal.excess_upper is not None}
    if next_weight is None or not bounded:
        return Verdict.PASS, words.unsuspicious(max(signal.canary.total for signal in signals.values()))
    excess = max(signal.excess_upper or 0.0 for signal in bounded.values())
    if next_weight * excess <= config.risk_budget:
        return Verdict.PASS, words.passed(next_weight * excess, next_weight, config.alpha_pass)
    name, slowest = max(bounded.items(), key=lambda item: item[1].more_requests_needed or 0.0)
    if slowest.more_requests_needed == math.inf:
        return Verdict.INCONCLUSIVE, words.hopeless(name, slowest, config.risk_budget / next_weight, next_weight)
    return Verdict.INCONCLUSIVE, words.waiting(name, slowest, next_weight)
