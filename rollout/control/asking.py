"""When a person is asked about a release, and when no longer. The ledger keeps both, so that nobody is called twice."""

from rollout.control.clock import Instant
from rollout.control.decide import Action, Hold
from rollout.ledger import events as e
from rollout.ledger.state import Release

CALM_S = 60.0  # a reason that comes and goes more often than that is one reason


class Asking:
    """What is asked about one release. After a restart it goes on with what the release itself knows."""

    def __init__(self) -> None:
        self._calm_since_s: float | None = None  # on the steady clock; None: a person is needed, or nobody was asked

    def news(self, release: Release, action: Action, now: Instant) -> tuple[e.Event, ...]:
        """What to write down about `action`: that a person is needed, or no longer is; mostly nothing."""
        if not isinstance(action, Hold):
            return ()  # the decision itself says that nobody is waited for
        if action.needs_person:
            self._calm_since_s = None
            if release.asked:
                return ()
            asked = e.PersonAsked(at_s=now.wall_s, release=release.number, reason=action.reason, left_s=action.left_s)
            return (asked,)
        if release.asked is None:
            return ()
        if self._calm_since_s is None:
            self._calm_since_s = now.steady_s
        if now.steady_s - self._calm_since_s < CALM_S:
            return ()
        self._calm_since_s = None
        return (e.PersonNotNeeded(at_s=now.wall_s, release=release.number),)
