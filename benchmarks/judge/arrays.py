"""Series in which users of Kayenta found that its test misses harm, judged by Kayenta's rule and by ours.

Each point is one window of our judge. Sources: the issues named.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.judge.kayenta import Label, classify
from rollout.judge import JudgeConfig, Judgement, Pair, Verdict, Window
from rollout.judge.judge import Judge
from rollout.signals.catalogue import catalogue

_BUCKETS_MS = (5, 25, 50, 75)
_POINT_S = 60.0


@dataclass(frozen=True, slots=True)
class Array:
    """One complaint: two series of points, and the requests behind each point."""

    issue: str
    story: str
    baseline: tuple[float, ...]
    canary: tuple[float, ...]
    stable_requests: int  # per point; our choice, because the issues do not say
    canary_requests: int
    is_latency: bool = False  # points are milliseconds, not errors


def _errors(
    issue: str, story: str, canary: Sequence[float], stable: float, *, requests: tuple[int, int] = (1000, 1000)
) -> Array:
    return Array(issue, story, (stable,) * len(canary), tuple(canary), *requests)


_STEADY = (10.0, 10.1, 10.2, 10.3, 10.4, 10.5, 10.6, 17.0, 17.1, 17.2, 17.3, 17.4, 17.5, 17.6, 17.7)
_ERRATIC = (1.0, 100.0, 4.0, 101.0, 5.0, 102.0, 6.0, 103.0, 7.0, 104.0, 8.0, 105.0, 9.0, 106.0, 17.0)

ARRAYS = (
    _errors("spinnaker/spinnaker#6278", "7 of 10 points a hundred times worse", [100] * 7 + [1] * 3, 1),
    _errors("spinnaker/spinnaker#6278", "8 of 10", [100] * 8 + [1] * 2, 1),
    _errors(
        "spinnaker/kayenta#426", "4 errors against none, equal traffic", [0, 1, 2, 1, 0, 0], 0, requests=(200, 200)
    ),
    _errors("spinnaker/kayenta#426", "the same from a tenth of the traffic", [0, 1, 2, 1, 0, 0], 0, requests=(180, 20)),
    _errors("spinnaker/kayenta#799", "11 errors against none", [1, 4, 2, 3, 1], 0),
    Array("spinnaker/kayenta#780", "latency turns erratic, same median", _STEADY, _ERRATIC, 20, 20, is_latency=True),
)


def kayenta_label(array: Array) -> Label:
    """Kayenta's judgement of the whole series."""
    return classify(array.baseline, array.canary)


def our_judgement(array: Array, *, margin: float | None = None) -> tuple[Judgement, int | None]:
    """Our judgement of the whole series, and the 1-based point at which the canary was failed, if it was.

    Args:
        margin: harmless excess of the error ratio; None: the default, a tenth of the risk budget.
    """
    rules = {**catalogue().rules, "errors": replace(catalogue().rules["errors"], margin=margin)}
    judge = Judge(JudgeConfig(rules=rules))
    failed_at = None
    for point in range(len(array.canary)):
        judge.observe(_windows(array, point))
        if failed_at is None and judge.judgement(next_weight=1.0).verdict is Verdict.FAIL:
            failed_at = point + 1
    return judge.judgement(next_weight=1.0), failed_at


def _windows(array: Array, point: int) -> list[Window]:
    end_s = _POINT_S * (point + 1)
    stable, canary = array.baseline[point], array.canary[point]
    if not array.is_latency:
        pairs = Pair(round(stable), array.stable_requests), Pair(round(canary), array.canary_requests)
        return [Window(end_s, _POINT_S, "errors", *pairs)]
    return [
        Window(
            end_s,
            _POINT_S,
            f"latency:{bound}",
            Pair(array.stable_requests * (stable > bound), array.stable_requests),
            Pair(array.canary_requests * (canary > bound), array.canary_requests),
        )
        for bound in _BUCKETS_MS
    ]
