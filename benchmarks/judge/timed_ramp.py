"""A timed ramp that a statistical test can stop, as teams run it that have a test but no risk budget."""

from typing import Protocol

from benchmarks.judge.tool import Outcome
from rollout.judge import Pair


class Test(Protocol):
    """A test of whether the canary is worse, window after window."""

    def observe(self, elapsed_s: float, weight: float, stable: Pair, canary: Pair) -> bool:
        """Take in a window. Returns whether the canary is proven worse.

        Args:
            elapsed_s: end of the window, seconds since the canary's first request.
            weight: canary share of the traffic in the window, 0 to 1.
        """


class TimedRamp:
    """Every weight for the same time, then all traffic; a step in which the canary answered nothing continues."""

    def __init__(self, test: Test, *, steps: tuple[int, ...] = (1, 5, 25, 50), pause_s: float = 300.0) -> None:
        """
        Args:
            steps: weights, percent; after the last one the canary takes all traffic and the test ends.
        """
        self._test, self._steps, self._pause_s = test, steps, pause_s
        self._step, self._ends_s, self._is_seen = 0, pause_s, False

    @property
    def weight_percent(self) -> int:
        return self._steps[self._step]

    def observe(self, elapsed_s: float, stable: Pair, canary: Pair) -> Outcome | None:
        self._is_seen |= canary.total > 0
        if self._test.observe(elapsed_s, self.weight_percent / 100, stable, canary):
            return "rolled_back"
        if elapsed_s < self._ends_s or not self._is_seen:
            return None
        if self._step == len(self._steps) - 1:
            return "promoted"
        self._step, self._ends_s, self._is_seen = self._step + 1, elapsed_s + self._pause_s, False
        return None
