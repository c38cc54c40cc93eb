"""Turns the evidence of each signal into one verdict and its reason.

FAIL comes first, then NO_DATA. PASS needs that nothing is suspicious and that the risk budget holds; otherwise the
verdict is INCONCLUSIVE.
"""

import math
from collections.abc import Mapping

from rollout.judge import words
from rollout.judge.types import Ask, Difference, JudgeConfig, SignalJudgement, Verdict


def signal_verdict(
    config: JudgeConfig,
    *,
    has_failed: bool,
    has_data: bool,
    log_e: float,
    is_within_budget: bool,
) -> Verdict:
    """The verdict of one signal.

    Args:
        is_within_budget: whether it is proven that the next weight harms no more than the budget allows.
    """
    if has_failed:
        return Verdict.FAIL
    if not has_data:
        return Verdict.NO_DATA
    return Verdict.PASS if is_within_budget and log_e < math.log(config.amber) else Verdict.INCONCLUSIVE


def overall(config: JudgeConfig, signals: Mapping[str, SignalJudgement], step: Ask | None) -> tuple[Verdict, str]:
    """The verdict and reason over all signals, where no signal failed and no required one lacks data."""
    name, suspect = max(signals.items(), key=lambda item: _suspicion(item[1]))
    if _suspicion(suspect) >= math.log(config.amber):
        seen = words.seen(name, config.rules.get(name.partition(":")[0]), suspect)
        return Verdict.INCONCLUSIVE, words.suspicious(seen, suspect)
    if step is None:
        return Verdict.PASS, words.unsuspicious(max(signal.canary.total for signal in signals.values()))
    if unproven := [(name, signal) for name, signal in signals.items() if _is_over_limit(signal)]:
        name, slowest = max(unproven, key=lambda item: item[1].more_requests_needed or 0.0)
        limited = words.words_of(name, config.rules.get(name.partition(":")[0]))
        return Verdict.INCONCLUSIVE, words.within_limit(name, limited, slowest)
    shares = {name: signal for name, signal in signals.items() if signal.excess_upper is not None}
    excess = max((signal.excess_upper or 0.0 for signal in shares.values()), default=0.0)
    waiting = shares if excess > config.most_excess(step) else {}
    means = {name: difference for name, signal in signals.items() if (difference := _budgeted(signal))}
    waiting |= {name: signals[name] for name, worst in means.items() if step.weight * worst.worst > (worst.budget or 0)}
    if not waiting:
        if shares:
            harmed = None if config.budget_requests is None else excess * step.requests
            return Verdict.PASS, words.passed(excess, step.weight, config.alpha_pass, harmed=harmed)
        if means:
            return Verdict.PASS, words.means_passed(means, config, step.weight)
        return Verdict.PASS, words.unsuspicious(max(signal.canary.total for signal in signals.values()))
    name, slowest = max(waiting.items(), key=lambda item: item[1].more_requests_needed or 0.0)
    if slowest.more_requests_needed == math.inf:
        return Verdict.INCONCLUSIVE, words.hopeless(name, slowest, config.most_excess(step), step.weight)
    return Verdict.INCONCLUSIVE, words.waiting(name, slowest, step.weight)


def _suspicion(signal: SignalJudgement) -> float:
    """Log e-value for harm; -inf where the signal cannot FAIL. For labels, also without any one caller: the largest."""
    most = signal.most_without.log_e if signal.most_without else -math.inf
    return max(signal.log_e, most) if signal.threshold < math.inf and not signal.is_excused else -math.inf


def _is_over_limit(signal: SignalJudgement) -> bool:
    """Whether PASS needs proof that the share of bad events is within its limit, and lacks it."""
    if signal.share_upper is None or signal.limit is None or signal.is_excused:
        return False
    return signal.share_upper > signal.limit


def _budgeted(signal: SignalJudgement) -> Difference | None:
    """The difference of the means where a budget limits it; else None."""
    return signal.difference if signal.difference and signal.difference.budget is not None else None
