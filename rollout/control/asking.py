"""When a person is asked about a release, and when no longer. The ledger has both, so that nobody is called twice."""

from rollout.control.clock import Instant
from rollout.control.decide import Action, Hold
from rollout.ledger import events as e
from rollout.ledger.state import Release

NEEDED_S = 5.0  # a reason that ends sooner, such as a version that misses one probe, needs no person
CALM_S = 60.0  # a reason that returns within this time counts as the same reason


class Asking:
    """Whether a person is asked about one release. After a restart it continues from the release's own state."""

    def __init__(self) -> None:
        self._is_needed = _Lasting()
        self._ends_by_itself = _Lasting()

    def news(self, release: Release, action: Action, now: Instant) -> tuple[e.Event, ...]:
        """The events to write about `action`: a person is needed, or no longer needed; usually none.

        A person is asked again if it changes whether the release is rolled back should nobody decide.
        """
        if not isinstance(action, Hold):
            return ()  # the decision itself shows that no person is needed any longer
        needed_s = self._is_needed.lasts_s(action.needs_person, now)
        ends = action.left_s is not None
        ends_s = self._ends_by_itself.lasts_s(ends, now)
        if not action.needs_person:
            is_gone = release.asked is not None and needed_s >= CALM_S
            return (e.PersonNotNeeded(at_s=now.wall_s, release=release.number),) if is_gone else ()
        if release.asked is None:
            is_news = needed_s >= NEEDED_S
        else:  # a pause stops the countdown, and the release itself shows the pause
            is_other = ends != (release.asked.left_s is not None) and not release.is_paused
            is_news = is_other and ends_s >= (NEEDED_S if ends else CALM_S)
        if not is_news:
            return ()
        number, reason, left_s = release.number, action.reason, action.left_s
        return (e.PersonAsked(at_s=now.wall_s, release=number, reason=reason, left_s=left_s),)


class _Lasting:
    """Measures for how long a yes-or-no value has not changed."""

    def __init__(self) -> None:
        self._value: bool | None = None
        self._since_s = 0.0  # on the steady clock

    def lasts_s(self, value: bool, now: Instant) -> float:
        """Seconds for which the value has been `value`, up to `now`."""
        if value is not self._value:
            self._value, self._since_s = value, now.steady_s
        return now.steady_s - self._since_s
