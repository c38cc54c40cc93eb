"""A canary that has all the traffic, judged by what stable was known to do: nothing is left to compare it with.

The controller asks it at 100 % and after promotion. Pure.

The comparison is exact under any drift, and ends with stable's traffic. From then on a share of failures is harmless
that is at most `TOLERANCE` times the one that stable showed before and during the release, plus the risk budget. What
is proven: a version whose requests fail, each with at most that probability, is failed with a chance of at most twice
`alpha` (once for the test, once for the limit). What is assumed: that no honest change of the traffic multiplies the
failures by more within a watch. Where one does, the way back was a mistake, but to a version that is known and warm.
"""

from collections.abc import Iterable
from dataclasses import replace

from rollout.judge import Judge, JudgeConfig, Pair, SignalRule, Window
from rollout.judge.limits import upper_limit
from rollout.state import Release

WATCHED_ERRORS = "watched_errors"  # the signal
TOLERANCE = 3.0  # over a day error ratios double and halve; threefold within minutes is news


def harmless_ratio(release: Release) -> float:
    """Share of failed requests, 0 to 1, up to which the canary of `release` is not worse than stable was known to be.

    With the upper limit of what stable showed: the less was seen of it, the more is harmless.
    """
    known = upper_limit(release.stable_errors, release.spec.alpha, phi=_phi(release))
    return min(1.0, TOLERANCE * known + release.spec.risk_budget)


def watch_judge(release: Release) -> Judge | None:
    """A judge for `watched` windows of `release`; None where too little is known of stable to fail anything."""
    spec, limit = release.spec, harmless_ratio(release)
    if limit == 1:
        return None
    config = JudgeConfig(
        alpha=spec.alpha,
        horizon_windows=max(1, round((spec.soak + spec.watch) / spec.window)),
        rules={WATCHED_ERRORS: SignalRule(kernel="bounded", weight=1.0, margin=limit)},
    )
    return Judge(config, {WATCHED_ERRORS: _phi(release)})


def watched(windows: Iterable[Window]) -> list[Window]:
    """What a watch looks at: the canary's errors."""
    return [
        replace(window, signal=WATCHED_ERRORS, stable=Pair(0, 0)) for window in windows if window.signal == "errors"
    ]


def _phi(release: Release) -> float:
    return release.phi.get("errors", 1.0)
