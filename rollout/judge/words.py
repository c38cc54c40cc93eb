"""The judge's conclusions, one sentence each, for a person at 3 a.m. The words for a signal come from its rule."""

import math
from collections.abc import Mapping

from rollout.format import about, about_span, at_most, certainty, count, odds, share, share_up, weight
from rollout.judge import number_words
from rollout.judge.types import (
    BothPairs,
    Difference,
    JudgeConfig,
    NumberRule,
    Pair,
    SignalJudgement,
    SignalRule,
    SignalWords,
    Without,
)

_MOST = 0.75
_FEWEST_IN_PLACE = 4  # fewer may be in one route or segment by chance


def words_of(signal: str, rule: SignalRule | None) -> SignalWords:
    """The words for `signal`, a name such as `errors`, `latency:100` or `class:7`."""
    if rule is None or rule.words is None:
        return SignalWords(signal, "events", f"were `{signal}`")
    return rule.words.of(signal.partition(":")[2])


def share_of(pair: Pair) -> str:
    """`bad` as a share of `total`."""
    return share(pair.bad / pair.total) if pair.total else "none yet"


def tally(pair: Pair) -> str:
    """The counts behind a share."""
    return f"{count(pair.bad)} of {count(pair.total)}"


def seen(signal: str, rule: SignalRule | None, judged: SignalJudgement) -> str:
    """The counts of both versions."""
    words = words_of(signal, rule)
    if rule and rule.numbers and judged.difference:
        means = number_words.contrast(judged.difference, rule.numbers)
        return (
            f"{signal}: {count(judged.canary.total)} canary {words.unit} {means}; {number_words.allowed(rule.numbers)}"
        )
    return comparison(signal, words, judged.stable, judged.canary, judged.limit)


def failed(seen: str, log_e: float) -> str:
    """FAIL: what was `seen`, and how rarely a harmless canary shows it in a whole release."""
    return f"{seen}; {odds(log_e)}"


def concentrated(signal: str, canary: Mapping[str, Pair], rules: Mapping[str, SignalRule]) -> str:
    """The route or segment that has most of the bad answers that `signal` counts; empty: none, or not known.

    "Most" means three in four, and at least twice as many as its share of the requests explains.

    Args:
        canary: canary's counts, by signal.
    """
    judged = rules.get(signal.partition(":")[0])
    if judged is None or not judged.is_bad_answer:
        return ""
    for family, rule in rules.items():
        parts = {name: pair for name, pair in canary.items() if name.partition(":")[0] == family}
        if not rule.words or not rule.words.place or not parts:
            continue
        every, worst = sum(parts.values(), Pair(0, 0)), max(parts, key=lambda name: parts[name].bad)
        bad, total = parts[worst].bad, parts[worst].total
        if bad >= max(_FEWEST_IN_PLACE, _MOST * every.bad) and bad * every.total >= 2 * total * every.bad:
            return f"{count(bad)} of its {count(every.bad)} bad answers were {words_of(worst, rule).place}"
    return ""


def no_data(missing: Mapping[str, SignalJudgement | None]) -> str:
    """NO_DATA: which signals lack traffic, and on which side. None: never seen."""
    if not missing:
        return "no data: nothing was measured yet"
    return "no data: " + ", ".join(f"{name} ({_absence(signal)})" for name, signal in missing.items())


def passed(excess: float, next_weight: float, alpha: float, *, harmed: float | None = None) -> str:
    """PASS: the worst case at the next weight.

    Args:
        excess: bound on the share of the canary's requests that are bad because of it.
        harmed: bound on users' requests harmed by the end of that step; None: no budget in requests.
    """
    bound = f"fewer than {share_up(next_weight * excess)} of requests would be harmed at {weight(100 * next_weight)}"
    in_all = "" if harmed is None else f", {at_most(harmed)} of users' requests by the end of that step"
    return f"with {certainty(alpha)} certainty {bound}{in_all}"


def unsuspicious(canary_requests: int) -> str:
    """PASS where no further step is asked about."""
    return f"nothing suspicious after {canary_requests:,} canary requests"


def means_passed(means: Mapping[str, Difference], config: JudgeConfig, next_weight: float) -> str:
    """PASS where only means have budgets: the worst case of each at the next weight."""
    rules = {name: config.rules[name.partition(":")[0]].numbers or NumberRule((0, 1)) for name in means}
    worst = ", ".join(
        f"{name} at most {number_words.moved(rules[name].upwards * next_weight * max(0.0, each.worst), rules[name])}"
        for name, each in means.items()
    )
    sure = f"with {certainty(config.alpha_pass)} certainty"
    return f"{sure}, averaged over all requests at {weight(100 * next_weight)}: {worst}"


def suspicious(seen: str, signal: SignalJudgement) -> str:
    """INCONCLUSIVE because of evidence of harm that is not yet enough to FAIL."""
    most = signal.most_without
    log_e, which = signal.log_e, ""
    if most and most.log_e > log_e:
        log_e, which = most.log_e, f" without the labels of `{most.caller}`"
    strength = f"log e {log_e:.1f}{which}, at {signal.threshold:.1f} it would be proof"
    return f"suspicious but not proven: {seen}; {strength}"


def unconfirmed(seen: str, least: Without) -> str:
    """INCONCLUSIVE because harm is proven by all labels, but not without those of one caller."""
    return f"{seen}; harm is proven with the labels of `{least.caller}`, but not yet without them"


def disagreeing(without: Without, own: BothPairs, others: BothPairs, threshold: float, amber: float) -> str:
    """FAIL that is left to a person because one caller's labels disagree with those of all others."""
    mine, theirs = (
        f"{share_of(pairs.canary)} of the canary's and {share_of(pairs.stable)} of stable's are wrong"
        for pairs in (own, others)
    )
    if without.log_e >= threshold:
        rest = "without them harm is proven"
    elif without.log_e < math.log(amber):
        rest = "without them there is no sign of harm"
    else:
        rest = "without them harm is not proven"
    return f"but callers disagree: by the labels of `{without.caller}` {mine}, by all others {theirs}; {rest}"


def waiting(name: str, signal: SignalJudgement, next_weight: float) -> str:
    """INCONCLUSIVE for lack of requests."""
    more, per_s = signal.more_requests_needed or 0.0, signal.canary_per_s
    is_uncertain = signal.difference or signal.stable.bad + signal.canary.bad
    spread = f" (could be {about(more / 4)} to {about(2 * more)})" if is_uncertain else ""
    wait = f", {about_span(more / per_s)} at {per_s:.2g} a second" if per_s else ""
    safe = f"to show that {weight(100 * next_weight)} is safe"
    return f"{name}: about {about(more)} more canary requests{spread} {safe}{wait}"


def within_limit(name: str, words: SignalWords, signal: SignalJudgement) -> str:
    """INCONCLUSIVE because the share of bad events is not proven to be within its limit."""
    more, limit = signal.more_requests_needed or 0.0, share(signal.limit or 0.0)
    seen = f"{name}: {tally(signal.canary)} {words.unit} {words.event} ({share_of(signal.canary)}), {limit} are allowed"
    if more == math.inf:
        return f"{seen}: at this share no number of them can pass, and more may prove that the share is too high"
    return f"{seen}: about {about(more)} more to show that the share stays within that"


def better(signals: Mapping[str, SignalJudgement], rules: Mapping[str, SignalRule]) -> str:
    """States that the canary is proven better and by which counts; first how often it differs from stable."""
    parts = []
    for name, signal in signals.items():
        rule = rules.get(name.partition(":")[0])
        if rule is None or not signal.canary.total:
            continue
        if rule.kernel == "bounded" and signal.is_excused:
            parts.append(f"it differs in {share_of(signal.canary)} of {words_of(name, rule).unit}")
        if rule.kernel == "bounded" and rule.tells_better:
            right = signal.canary.total - signal.canary.bad
            won = tally(Pair(right, signal.canary.total))
            parts.append(f"where labels show that only one version is right, it is the canary in {won}")
        elif rule.tells_better:
            words = words_of(name, rule)
            parts.append(
                f"{share_of(signal.canary)} of its {words.unit} {words.event}, {share_of(signal.stable)} of stable's"
            )
    return f"proven better by labels: {', and '.join(parts)}"


def hopeless(name: str, signal: SignalJudgement, excess: float, next_weight: float) -> str:
    """INCONCLUSIVE because no number of requests can be enough."""
    if signal.difference:
        return (
            f"{name}: at this difference, or with numbers that vary so much, no number of requests can show that "
            f"{weight(100 * next_weight)} is within the budget; raise `budget` or take a smaller step"
        )
    return (
        f"{name}: with {share_of(signal.stable + signal.canary)} of all requests bad, an excess under {share(excess)} "
        f"can never be shown, so {weight(100 * next_weight)} cannot pass; raise `risk_budget` or take a smaller step"
    )


def comparison(signal: str, words: SignalWords, stable: Pair, canary: Pair, limit: float | None = None) -> str:
    """The bad events of both versions in words.

    Args:
        limit: the harmless share, where the canary is not compared with stable.
    """
    seen = f"{signal}: {tally(canary)} canary {words.unit} {words.event} ({share_of(canary)})"
    if limit is not None:
        return f"{seen}, {share(limit)} are allowed"
    return f"{seen} against {tally(stable)} on stable ({share_of(stable)})"


def _absence(signal: SignalJudgement | None) -> str:
    if signal is None:
        return "never seen"
    sides = [side for side, pair in (("canary", signal.canary), ("stable", signal.stable)) if not pair.total]
    return f"no requests on {' and '.join(sides)}"
