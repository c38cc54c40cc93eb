"""Stable's counts of the last half hour: from them the judge knows how noisy counts are and how often stable fails.

Every counter is kept, because the next plan may need any of them. In a release, stable's part of each window counts.
"""

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from itertools import groupby, takewhile
from typing import NamedTuple

from rollout.judge import OwnNoise, Pair, Window, own_noise
from rollout.ledger.kept_history import StableWindows
from rollout.ledger.state import Phase, Release
from rollout.signals.plan import SignalSelection

HISTORY_S = 1800.0  # how far back the calibration goes
_NOTHING = Pair(0, 0)


class _Seen(NamedTuple):
    """A window, the version whose counts are its `stable`, and when it was added, seconds on a steady clock."""

    at_s: float
    version: str
    window: Window


class Calibration:
    """Stable's windows of the last half hour. Their noise is kept when stable changes, their failures are not."""

    def __init__(self) -> None:
        self._seen: deque[_Seen] = deque()

    def observe(self, windows: Iterable[Window], now_s: float, *, release: Release | None, stable: str) -> None:
        """Add the counts of the most trusted version from new windows; forget windows that are too old.

        Args:
            now_s: seconds on a steady clock.
            stable: the version that has all traffic where there is no release.
        """
        if release and release.phase is Phase.WATCHING:
            self._add((window.of("canary") for window in windows), now_s, release.canary)
        elif release and release.phase is Phase.STEPPING and not release.mirror:
            self._add(windows, now_s, release.stable)
        else:
            alone = (window.of("stable") for window in windows)
            self._add(alone, now_s, release.stable if release else stable)
        self._forget(now_s)

    def restore(self, ticks: Iterable[StableWindows], *, wall_s: float, now_s: float) -> None:
        """Add what an earlier controller stored; call this before anything else.

        Args:
            ticks: oldest first.
            wall_s: Unix seconds now; gives the age of the ticks.
            now_s: the same moment on a steady clock.
        """
        for tick in ticks:
            for window in tick.windows:
                age_s = max(0.0, wall_s - window.end_s)  # never negative, even if the clock was set back
                self._seen.append(_Seen(now_s - age_s, tick.version, window))
        self._forget(now_s)

    def ticks(self) -> Iterator[StableWindows]:
        """All stored windows, oldest first."""
        for (version, _), seen in groupby(self._seen, key=lambda one: (one.version, one.window.end_s)):
            yield StableWindows(version, tuple(one.window for one in seen))

    @property
    def span_s(self) -> float:
        """How much time the windows cover, seconds."""
        return math.fsum(tick.windows[0].window_s for tick in self.ticks())

    def known_s(self, counted: str, now_s: float) -> float:
        """For how long a counter has been counted, seconds, at most `HISTORY_S`; 0: never.

        Args:
            counted: the counter's name in readings.
            now_s: seconds on a steady clock.
        """
        return next((now_s - one.at_s + one.window.window_s for one in self._seen if one.window.signal == counted), 0.0)

    @property
    def errors(self) -> Pair:
        """Failed and all requests of the present stable version, since it became stable."""
        newest = self._seen[-1].version if self._seen else ""
        own = takewhile(lambda one: one.version == newest, reversed(self._seen))
        return sum((one.window.stable for one in own if one.window.signal == "errors"), _NOTHING)

    def noise(self, selection: SignalSelection) -> dict[str, OwnNoise]:
        """The noise of every signal that a plan wants."""
        by_signal: defaultdict[str, list[Window]] = defaultdict(list)
        for window in selection.of([one.window for one in self._seen]):
            by_signal[window.signal].append(window)
        return {signal: own_noise(windows) for signal, windows in by_signal.items()}

    def _add(self, windows: Iterable[Window], now_s: float, version: str) -> None:
        self._seen.extend(_Seen(now_s, version, window) for window in windows if window.stable.total)

    def _forget(self, now_s: float) -> None:
        while self._seen and self._seen[0].at_s < now_s - HISTORY_S:
            self._seen.popleft()
