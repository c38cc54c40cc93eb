"""What stable did before a release: from it the judge learns how noisy the counts are, and what stable fails. Pure.

The controller fills it while one version has all the traffic.
"""

import math
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import replace

from rollout.judge import Pair, Window, dispersion
from rollout.pace import HISTORY_S
from rollout.state import Phase, Release


class History:
    """Stable's windows of the last half hour. Their noise is the traffic's; their failures are one version's."""

    def __init__(self) -> None:
        self._windows: deque[Window] = deque()
        self._version = ""
        self._since_s = -math.inf  # since when it was stable

    def observe(self, windows: Iterable[Window], now_s: float, *, release: Release | None, stable: str) -> None:
        """Take in new windows, but where two versions have traffic; forget what is too old at `now_s`, Unix seconds.

        Args:
            stable: the version that has all traffic where there is no release.
        """
        if release is None or release.phase is Phase.STARTING:
            self._add(windows, version=stable)
        elif release.phase is Phase.WATCHING:
            self._add((replace(window, stable=window.canary) for window in windows), version=release.canary)
        while self._windows and self._windows[0].end_s < now_s - HISTORY_S:
            self._windows.popleft()

    @property
    def span_s(self) -> float:
        """From the first window to the last, seconds."""
        return self._windows[-1].end_s - self._windows[0].end_s if self._windows else 0.0

    @property
    def errors(self) -> Pair:
        """Failed and all requests of the version that is stable now."""
        own = (window for window in self._windows if window.signal == "errors" and window.end_s > self._since_s)
        return sum((window.stable for window in own), Pair(0, 0))

    def phi(self) -> dict[str, float]:
        """Dispersion of every signal."""
        by_signal: defaultdict[str, list[Window]] = defaultdict(list)
        for window in self._windows:
            by_signal[window.signal].append(window)
        return {signal: dispersion(windows) for signal, windows in by_signal.items()}

    def _add(self, windows: Iterable[Window], *, version: str) -> None:
        if version != self._version:
            self._version = version
            self._since_s = self._windows[-1].end_s if self._windows else -math.inf
        self._windows.extend(windows)
