"""Weight and traffic over a release, with few enough points to be drawn every two seconds."""

from collections.abc import Iterable
from itertools import groupby

from rollout.explain.timeline import SignalTick, Timeline
from rollout.ui.views import TraceView

MOST_POINTS = 80


def trace(release: Timeline, now_s: float) -> TraceView | None:
    """The trace of `release`; None before anything was counted. Copied requests count as requests to the canary."""
    until_s = release.ended_s or max(now_s, release.seen_s)
    if not release.failures or until_s <= release.requested_s:
        return None
    return TraceView(
        from_s=release.requested_s,
        until_s=until_s,
        weights=tuple((at_s, percent) for at_s, percent, _ in release.weights),
        traffic=tuple(_rates(release.failures, release.requested_s, until_s)),
    )


def _rates(ticks: Iterable[SignalTick], from_s: float, until_s: float) -> Iterable[tuple[float, float, float]]:
    """Requests over equal spans of time, divided by the time in them that was measured."""
    width_s = (until_s - from_s) / MOST_POINTS
    for _, group in groupby(ticks, key=lambda tick: int((tick.window.end_s - from_s) / width_s)):
        windows = [tick.window for tick in group]
        counted_s = sum(window.window_s for window in windows)
        if counted_s > 0:
            stable = sum(window.stable.total for window in windows)
            canary = sum(window.canary.total for window in windows)
            yield windows[-1].end_s, round(stable / counted_s, 2), round(canary / counted_s, 2)
