"""Measurements in which nothing happened, written as one: a release that waits must not fill its ledger.

A canary without requests, or one that a person holds, is measured every few seconds, and each time nothing was counted
and the judgement is the one before. Such measurements are held back and become one that lasted as long as all of
them, before anything else is written and at least once a minute. A controller that is killed meanwhile loses none of
what was counted, because nothing was: its successor reads on where the ledger says that the counters were read to.
"""

from rollout.ledger.events import Ticked
from rollout.ledger.state import Deployment, fold
from rollout.signals.counters import Reading

LONGEST_S = 60.0  # that is held back


class QuietTicks:
    """The measurement that is held back, if any."""

    def __init__(self) -> None:
        self.held: tuple[Ticked, ...] = ()  # one or none
        self.cursor: Reading | None = None  # how far the counters were read with it
        self._before = Deployment()  # without it
        self._last: Ticked | None = None  # the newest measurement, written or held

    def takes(
        self, tick: Ticked, deployment: Deployment, cursor: Reading | None, *, is_still: bool
    ) -> Deployment | None:
        """Hold `tick` back where it says nothing new.

        Args:
            deployment: before it, with what is held.
            cursor: how far the counters were read.
            is_still: nothing was decided, and nobody looks at requests of earlier readings.

        Returns: the deployment after it; None: it is to be written.
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
        """Whether it is held for long enough."""
        return any(tick.window_s >= LONGEST_S for tick in self.held)

    def before(self, deployment: Deployment) -> Deployment:
        """`deployment` without what is held."""
        return self._before if self.held else deployment

    def written(self) -> None:
        """What was held is on its way into the ledger."""
        self.held, self.cursor = (), None


def _said(tick: Ticked) -> Ticked:
    """What it says besides when it was, and for how long."""
    return tick.model_copy(update={"at_s": 0.0, "window_s": 0.0})
