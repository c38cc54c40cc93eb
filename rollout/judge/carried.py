"""How much of the evidence of an earlier release carries over to the next release of the same two versions.

An e-value E above 1 is money won by betting on harm. The next release begins with 1 of its own, as every release does,
and with the E - 1 that were won, all of it bet on harm that is present from the first window. If the canary does well
now, that money is lost again, so a version whose trouble had another cause can be promoted. If the harm goes on, it
decides within a few windows. Losses are not carried over: a good record would make later harm harder to find.

If both versions are harmless, the bets of n releases together have a mean of at most n. So the chance that any of the
releases fails is at most n times `alpha`, the same as for n releases that carry nothing over.
"""

import math
from collections.abc import Mapping

from rollout.judge.logarithms import log_sum
from rollout.judge.types import Judgement, SignalJudgement, SignalRule, Verdict

_LEAST_LOG_E = math.log(2)  # most harmless canaries reach this at some time
_LEAST_PART = math.log(0.01)  # of the largest part; smaller parts are not worth the computation


def carried(judgement: Judgement, before: Mapping[str, float]) -> dict[str, float]:
    """By signal, the natural log of the evidence that carries over; the sum of the evidence is at most E - 1.

    Nothing carries over from a FAIL, from a signal that labels excuse, or where the e-value is below 2.

    Args:
        judgement: the last judgement of a release.
        before: what that release began with. Its signals that were never seen keep their part.
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
    """Its log e-value; for labels, the part that does not rest on any single caller."""
    return min(signal.log_e, signal.least_without.log_e) if signal.least_without else signal.log_e


def still_about_the_same(
    won: Mapping[str, float], rules: Mapping[str, SignalRule], rules_before: Mapping[str, SignalRule]
) -> dict[str, float]:
    """The carried evidence of signals whose rule is unchanged: another rule is another null hypothesis."""

    def is_same(name: str) -> bool:
        family = name.partition(":")[0]
        return family in rules and rules[family] == rules_before.get(family)

    return {name: log_won for name, log_won in won.items() if is_same(name)}
