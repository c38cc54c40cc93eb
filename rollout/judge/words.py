"""The judge's conclusions in one sentence each, for a person at 3 a.m.

Called by `judge.Judge`. Knows how to say things, not how they are decided.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rollout.judge.types import Pair, SignalJudgement
from rollout.numerals import about, about_span, odds, share, share_up, weight


@dataclass(frozen=True, slots=True)
class SignalWords:
    """How to speak of one signal: "3 of 812 `unit` `event`"."""

    title: str
    unit: str
    event: str


def signal_words(signal: str) -> SignalWords:
    """The words for `signal`, a name such as `errors`, `latency:100` or `class:7`."""
    family, _, key = signal.partition(":")
    match family:
        case "errors":
            return SignalWords("errors", "requests", "failed")
        case "watched_errors":
            return SignalWords("errors with all traffic", "requests", "failed")
        case "affected_users":
            return SignalWords("users affected", "requests", "were the first failure of their user")
        case "latency" if not key:  # the whole family: nothing was seen of it
            return SignalWords("latency", "requests", "were slow")
        case "class" if not key:
            return SignalWords("predicted classes", "predictions", "were made")
        case "latency":
            return SignalWords(f"slower than {key} ms", "requests", f"took longer than {key} ms")
        case "class":
            return SignalWords(f'predicted "{key}"', "predictions", f'were "{key}"')
        case "low_confidence":
            return SignalWords("low confidence", "predictions", "had low confidence")
        case "wrong_label":
            return SignalWords("wrong by label", "labelled predictions", "were wrong")
        case "disagreement":
            return SignalWords("unlike stable", "answers to copied requests", "differ from stable's")
        case _:
            return SignalWords(signal, "events", f"were `{signal}`")


def share_of(pair: Pair) -> str:
    """The share that `bad` has in `total`."""
    return share(pair.bad / pair.total) if pair.total else "none yet"


def failed(signal: str, stable: Pair, canary: Pair, log_e: float, *, limit: float | None = None) -> str:
    """FAIL: what was seen, and how rarely a harmless canary shows it in a whole release.

    Args:
        limit: the harmless share, where the canary is not compared with stable's.
    """
    return f"{_comparison(signal, stable, canary, limit)}; {odds(log_e)}"


def no_data(missing: Mapping[str, SignalJudgement | None]) -> str:
    """NO_DATA: which signals lack traffic, and on which side. None: never seen."""
    if not missing:
        return "no data: nothing was measured yet"
    return "no data: " + ", ".join(f"{name} ({_absence(signal)})" for name, signal in missing.items())


def passed(harmed: float, next_weight: float, alpha: float) -> str:
    """PASS: the worst case at the next weight. `harmed` is a share of all requests."""
    bound = f"fewer than {share_up(harmed)} of requests would be harmed at {weight(100 * next_weight)}"
    return f"with {share(1 - alpha)} certainty {bound}"


def unopposed(canary_requests: int) -> str:
    """PASS where no further step is asked for."""
    return f"nothing speaks against the canary after {canary_requests:,} requests"


def suspicious(name: str, signal: SignalJudgement) -> str:
    """INCONCLUSIVE because of evidence that is not yet enough to FAIL."""
    comparison = _comparison(name, signal.stable, signal.canary, signal.limit)
    strength = f"evidence {about(math.exp(signal.log_e))}, {about(math.exp(signal.threshold))} would be proof"
    return f"suspicious but not proven: {comparison}; {strength}"


def waiting(name: str, signal: SignalJudgement, next_weight: float) -> str:
    """INCONCLUSIVE for lack of requests."""
    more, pace = signal.more_requests_needed or 0.0, signal.canary_per_s
    spread = f" (could be {about(more / 4)} to {about(2 * more)})" if signal.stable.bad + signal.canary.bad else ""
    wait = f", {about_span(more / pace)} at the present {pace:.2g} a second" if pace else ""
    safe = f"to show that {weight(100 * next_weight)} is safe"
    return f"{name}: about {about(more)} more canary requests{spread} {safe}{wait}"


def hopeless(name: str, signal: SignalJudgement, excess: float, next_weight: float) -> str:
    """INCONCLUSIVE that more requests will not end."""
    return (
        f"{name}: with {share_of(signal.stable + signal.canary)} of all requests bad, an excess under {share(excess)} "
        f"can never be shown, so {weight(100 * next_weight)} cannot pass; raise `risk_budget` or take a smaller step"
    )


def _comparison(signal: str, stable: Pair, canary: Pair, limit: float | None) -> str:
    words = signal_words(signal)
    seen = f"{signal}: {canary.bad:,} of {canary.total:,} canary {words.unit} {words.event} ({share_of(canary)})"
    if limit is not None:
        return f"{seen}, {share(limit)} are allowed"
    return f"{seen} against {stable.bad:,} of {stable.total:,} on stable ({share_of(stable)})"


def _absence(signal: SignalJudgement | None) -> str:
    if signal is None:
        return "never seen"
    sides = [side for side, pair in (("canary", signal.canary), ("stable", signal.stable)) if not pair.total]
    return f"no requests on {' and '.join(sides)}"
