"""The judge's conclusions in one sentence each, for a person at 3 a.m.

Called by `judge.Judge`. Knows how to say things, not how they are decided.
"""

import math
from collections.abc import Mapping

from rollout.judge.types import Pair, SignalJudgement

_LOG_MANY = math.log(1e9 + 1)  # "at most once in" more than a billion says no more than a billion
_UNITS = {
    "class": "predictions",
    "low_confidence": "predictions",
    "wrong_label": "labelled predictions",
    "disagreement": "answers to copied requests",
}
_EVENTS = {
    "errors": "failed",
    "affected_users": "were the first failure of their user",
    "latency": "took longer than {key} ms",
    "class": 'were "{key}"',
    "low_confidence": "had low confidence",
    "wrong_label": "were wrong",
    "disagreement": "differ from stable's",
}


def failed(signal: str, stable: Pair, canary: Pair, log_e: float, *, limit: float | None = None) -> str:
    """FAIL: what was seen, and how rarely a harmless canary shows it in a whole release.

    Args:
        limit: the harmless share, where the canary is not compared with stable's.
    """
    releases = int(math.exp(min(log_e, _LOG_MANY)))
    digit = 10 ** max(0, len(str(releases)) - 2)
    rarity = f"a harmless canary shows this at most once in {releases // digit * digit:,} releases"
    return f"{_comparison(signal, stable, canary, limit)}; {rarity}"


def no_data(missing: Mapping[str, SignalJudgement | None]) -> str:
    """NO_DATA: which signals lack traffic, and on which side. None: never seen."""
    if not missing:
        return "no data: nothing was measured yet"
    return "no data: " + ", ".join(f"{name} ({_absence(signal)})" for name, signal in missing.items())


def passed(harmed: float, next_weight: float, alpha: float) -> str:
    """PASS: the worst case at the next weight. `harmed` is a share of all requests."""
    bound = f"fewer than {_percent_up(harmed)} of requests would be harmed at {_percent(next_weight)}"
    return f"with {_percent(1 - alpha)} certainty {bound}"


def unopposed(canary_requests: int) -> str:
    """PASS where no further step is asked for."""
    return f"nothing speaks against the canary after {canary_requests:,} requests"


def suspicious(name: str, signal: SignalJudgement, *, limit: float | None = None) -> str:
    """INCONCLUSIVE because of evidence that is not yet enough to FAIL; `limit` as in `failed`."""
    comparison = _comparison(name, signal.stable, signal.canary, limit)
    strength = f"evidence {_count(math.exp(signal.log_e))}, {_count(math.exp(signal.threshold))} would be proof"
    return f"suspicious but not proven: {comparison}; {strength}"


def waiting(name: str, signal: SignalJudgement, next_weight: float) -> str:
    """INCONCLUSIVE for lack of requests."""
    more, pace = signal.more_requests_needed or 0.0, signal.canary_per_s
    spread = f" (could be {_count(more / 4)} to {_count(2 * more)})" if signal.stable.bad + signal.canary.bad else ""
    wait = f", {_duration(more / pace)} at the present {pace:.2g} a second" if pace else ""
    return (
        f"{name}: about {_count(more)} more canary requests{spread} to show that {_percent(next_weight)} is safe{wait}"
    )


def hopeless(name: str, signal: SignalJudgement, excess: float, next_weight: float) -> str:
    """INCONCLUSIVE that more requests will not end."""
    return (
        f"{name}: with {_ratio(signal.stable + signal.canary)} of all requests bad, an excess under {_percent(excess)} "
        f"can never be shown, so {_percent(next_weight)} cannot pass; raise `risk_budget` or take a smaller step"
    )


def _comparison(signal: str, stable: Pair, canary: Pair, limit: float | None) -> str:
    family, _, key = signal.partition(":")
    unit = _UNITS.get(family, "requests")
    event = _EVENTS.get(family, "were bad").format(key=key)
    seen = f"{signal}: {canary.bad:,} of {canary.total:,} canary {unit} {event} ({_ratio(canary)})"
    if limit is not None:
        return f"{seen}, {_percent(limit)} are allowed"
    return f"{seen} against {stable.bad:,} of {stable.total:,} on stable ({_ratio(stable)})"


def _absence(signal: SignalJudgement | None) -> str:
    if signal is None:
        return "never seen"
    sides = [side for side, pair in (("canary", signal.canary), ("stable", signal.stable)) if not pair.total]
    return f"no requests on {' and '.join(sides)}"


def _ratio(pair: Pair) -> str:
    return _percent(pair.bad / pair.total) if pair.total else "none yet"


def _percent(ratio: float) -> str:
    """Two significant digits, three from 10 %."""
    percent = 100 * ratio
    if 0 < percent < 0.001:
        return "under 0.001 %"
    return f"{percent:.3g} %" if percent >= 10 else f"{percent:.2g} %"


def _percent_up(ratio: float) -> str:
    """Two significant digits, rounded up: for sentences that say "fewer than"."""
    if ratio <= 1e-5:
        return "0.001 %"
    digit = 10.0 ** (math.floor(math.log10(ratio)) - 1)
    return _percent(math.ceil(ratio / digit - 1e-9) * digit)


def _count(number: float) -> str:
    """Two significant digits with thousands separators."""
    whole = max(1, round(number))
    return f"{round(whole, 2 - len(str(whole))):,}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"about {_count(seconds)} s"
    if seconds < 100 * 60:
        return f"about {_count(seconds / 60)} min"
    return f"about {_count(seconds / 3600)} h"
