"""The evidence that an earlier release of the same two versions ended with: what of it the next one begins with.

An e-value E above 1 is money won by betting on harm. The next release begins with 1 of its own, as every release does,
and with the E - 1 that were won, all of it bet on harm that is there from the first window. So it is lost again where
the canary does well now, and a version whose trouble had another cause can be promoted; where the harm goes on it
decides within few windows. What was lost is forgotten, or a good record would make later harm harder to find.

If both are harmless, all bets of n releases have a mean of at most n: the chance that any of them fails is at most
n times `alpha`, that of n releases which know nothing of each other.
"""

import math
from collections.abc import Mapping

from rollout.judge.logarithms import log_sum
from rollout.judge.types import Judgement, SignalJudgement, SignalRule, Verdict

_LEAST_LOG_E = math.log(2)  # most harmless canaries show as much at some time
_LEAST_PART = math.log(0.01)  # of the largest part; smaller ones are not worth their arithmetic


def carried(judgement: Judgement, before: Mapping[str, float]) -> dict[str, float]:
    """By signal, the log of what it won; the sum is E - 1 at most.

    Nothing from a FAIL, from a signal that labels excuse, or where little was won.

    Args:
        judgement: the last one of a release.
        before: what that release began with. Signals of it that were never seen keep theirs.
    """
    if judgement.verdict is Verdict.FAIL:
        return {}
    seen = {name: signal for name, signal in judgement.signals.items() if signal.stable.total or signal.canary.total}
    unseen = {name: log_won for name, log_won in before.items() if name not in seen}
    parts = {
        name: _without_anyone(signal) + judgement.threshold - signal.threshold
        for name, signal in seen.items()
        if signal.threshold < math.inf and not signal.is_excused
    }
    log_e = log_sum(parts.values()) if parts else 0.0
    if log_e < _LEAST_LOG_E:
        return unseen
    log_won, least = math.log(math.expm1(log_e)) - log_e, max(parts.values()) + _LEAST_PART
    return unseen | {name: part + log_won for name, part in parts.items() if part >= least}


def _without_anyone(signal: SignalJudgement) -> float:
    """Its log e-value; of labels, what of it does not rest on those of any one caller."""
    return min(signal.log_e, signal.least_without.log_e) if signal.least_without else signal.log_e


def still_about_the_same(
    won: Mapping[str, float], rules: Mapping[str, SignalRule], rules_before: Mapping[str, SignalRule]
) -> dict[str, float]:
    """What was won on signals with the same rule as now: under another one, other canaries are harmless."""

    def is_same(name: str) -> bool:
        family = name.partition(":")[0]
        return family in rules and rules[family] == rules_before.get(family)

    return {name: log_won for name, log_won in won.items() if is_same(name)}
