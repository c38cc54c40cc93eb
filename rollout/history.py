"""What stable did before a release: from it the judge learns how noisy the counts are, and what stable fails. Pure.

The controller fills it while no canary has traffic. Knows nothing of releases.
"""

from collections import defaultdict, deque
from collections.abc import Iterable

from rollout.judge import Pair, Window, dispersion
from rollout.pace import HISTORY_S


class History:
    """Stable's windows of the last half hour."""

    def __init__(self) -> None:
        self._windows: deque[Window] = deque()

    def add(self, windows: Iterable[Window], now_s: float) -> None:
        """Take in new windows; forget what is too old at `now_s`, Unix seconds."""
        self._windows.extend(windows)
        while self._windows and self._windows[0].end_s < now_s - HISTORY_S:
            self._windows.popleft()

    @property
    def span_s(self) -> float:
        """From the first window to the last, seconds."""
        return self._windows[-1].end_s - self._windows[0].end_s if self._windows else 0.0

    @property
    def errors(self) -> Pair:
        """Failed and all requests."""
        return sum((window.stable for window in self._windows if window.signal == "errors"), Pair(0, 0))

    def phi(self) -> dict[str, float]:
        """Dispersion of every signal."""
        by_signal: defaultdict[str, list[Window]] = defaultdict(list)
        for window in self._windows:
            by_signal[window.signal].append(window)
        return {signal: dispersion(windows) for signal, windows in by_signal.items()}
