"""The errors of the last half minute, which the absolute guards look at. Pure.

The controller and the simulation keep one for each release. Knows nothing of limits.
"""

from collections import deque
from collections.abc import Iterable

from rollout.judge import Pair, Window
from rollout.pace import RECENT_S


class RecentErrors:
    """Sums over a sliding span of `RECENT_S`."""

    def __init__(self) -> None:
        self._windows: deque[Window] = deque()

    def add(self, windows: Iterable[Window], now_s: float) -> None:
        """Take in new windows of any signals; forget what is too old at `now_s`, Unix seconds."""
        self._windows.extend(window for window in windows if window.signal == "errors")
        while self._windows and self._windows[0].end_s < now_s - RECENT_S:
            self._windows.popleft()

    @property
    def stable(self) -> Pair:
        return sum((window.stable for window in self._windows), Pair(0, 0))

    @property
    def canary(self) -> Pair:
        return sum((window.canary for window in self._windows), Pair(0, 0))
