"""Combines measurements in which nothing happened into one, so that a waiting release does not fill its ledger.

A canary without requests, or one that a person holds, is measured every few seconds, and each time nothing is counted
and the judgement is unchanged. Such measurements are held back and combined into one that lasts as long as all of them.
It is written before anything else is written, and at least once a minute. A controller that is killed meanwhile loses
no counts, because there were none: its successor continues from the counters' values in the ledger.
"""

from rollout.ledger.events import Ticked
from rollout.ledger.state import Deployment, fold
from rollout.signals.counters import Reading

LONGEST_S = 60.0  # longest time for which measurements are held back


class QuietTicks:
    """Holds back at most one combined measurement."""

    def __init__(self) -> None:
        self.held: tuple[Ticked, ...] = ()  # one or none
        self.cursor: Reading | None = None  # the counters' values at the held measurement
        self._before = Deployment()  # the state without the held measurement
        self._last: Ticked | None = None  # the newest measurement, written or held

    def takes(
        self, tick: Ticked, deployment: Deployment, cursor: Reading | None, *, is_still: bool
    ) -> Deployment | None:
        """Hold `tick` back if it says nothing new.

        Args:
            tick: the newest measurement.
            deployment: the state before it, including what is held.
            cursor: the counters' values at this tick.
            is_still: nothing was decided, and the guard has no requests of earlier readings.

        Returns: the state after the tick; None: the tick must be written.
        """
        last, self._last = self._last, tick
        if not is_still or tick.windows or last is None or _said(tick) != _said(last):
            return None
        if self.held:
            tick = tick.model_copy(update={"window_s": self.held[0].window_s + tick.window_s})
        else:
            self._before = deployment
        self.held, self.cursor = (tick,), cursor
        return fold(self.held, self._before)

    @property
    def is_due(self) -> bool:
        """Whether the held measurement is long enough to be written."""
        return any(tick.window_s >= LONGEST_S for tick in self.held)

    def before(self, deployment: Deployment) -> Deployment:
        """The state without the held measurement."""
        return self._before if self.held else deployment

    def written(self) -> None:
        """Forget the held measurement, which has been passed to the ledger."""
        self.held, self.cursor = (), None


def _said(tick: Ticked) -> Ticked:
    """The tick without its time and length, for comparison."""
    return tick.model_copy(update={"at_s": 0.0, "window_s": 0.0})
