"""When a person is asked about a release, and when no longer. The ledger keeps both, so that nobody is called twice."""

import math

from rollout.control.clock import Instant
from rollout.control.decide import Action, Hold
from rollout.ledger import events as e
from rollout.ledger.state import Release

NEEDED_S = 5.0  # a reason that is gone sooner, such as a version that misses one probe, needs nobody
CALM_S = 60.0  # a reason that comes and goes more often than that is one reason


class Asking:
    """What is asked about one release. After a restart it goes on with what the release itself knows."""

    def __init__(self) -> None:
        self._is_needed = False
        self._since_s = -math.inf  # since when that is so, on the steady clock

    def news(self, release: Release, action: Action, now: Instant) -> tuple[e.Event, ...]:
        """What to write down about `action`: that a person is needed, or no longer is; mostly nothing."""
        if not isinstance(action, Hold):
            return ()  # the decision itself says that nobody is waited for
        if action.needs_person != self._is_needed or self._since_s == -math.inf:
            self._is_needed, self._since_s = action.needs_person, now.steady_s
        lasts_s = now.steady_s - self._since_s
        if action.needs_person and release.asked is None and lasts_s >= NEEDED_S:
            number, reason, left_s = release.number, action.reason, action.left_s
            return (e.PersonAsked(at_s=now.wall_s, release=number, reason=reason, left_s=left_s),)
        if not action.needs_person and release.asked and lasts_s >= CALM_S:
            return (e.PersonNotNeeded(at_s=now.wall_s, release=release.number),)
        return ()
