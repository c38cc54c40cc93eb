"""When a person is asked about a release, and when no longer. The ledger keeps both, so that nobody is called twice."""

from rollout.control.clock import Instant
from rollout.control.decide import Action, Hold
from rollout.ledger import events as e
from rollout.ledger.state import Release

NEEDED_S = 5.0  # a reason that is gone sooner, such as a version that misses one probe, needs nobody
CALM_S = 60.0  # a reason that comes and goes more often than that is one reason


class Asking:
    """What is asked about one release. After a restart it goes on with what the release itself knows."""

    def __init__(self) -> None:
        self._is_needed = _Lasting()
        self._ends_by_itself = _Lasting()

    def news(self, release: Release, action: Action, now: Instant) -> tuple[e.Event, ...]:
        """What to write down about `action`: that a person is needed, or no longer is; mostly nothing.

        A person is asked again where what happens if nobody decides is another.
        """
        if not isinstance(action, Hold):
            return ()  # the decision itself says that nobody is waited for
        needed_s = self._is_needed.lasts_s(action.needs_person, now)
        ends = action.left_s is not None
        ends_s = self._ends_by_itself.lasts_s(ends, now)
        if not action.needs_person:
            is_gone = release.asked is not None and needed_s >= CALM_S
            return (e.PersonNotNeeded(at_s=now.wall_s, release=release.number),) if is_gone else ()
        if release.asked is None:
            is_news = needed_s >= NEEDED_S
        else:  # a pause stops the time, which the release itself says
            is_other = ends != (release.asked.left_s is not None) and not release.is_paused
            is_news = is_other and ends_s >= (NEEDED_S if ends else CALM_S)
        if not is_news:
            return ()
        number, reason, left_s = release.number, action.reason, action.left_s
        return (e.PersonAsked(at_s=now.wall_s, release=number, reason=reason, left_s=left_s),)


class _Lasting:
    """Since when something is as it is."""

    def __init__(self) -> None:
        self._value: bool | None = None
        self._since_s = 0.0  # on the steady clock

    def lasts_s(self, value: bool, now: Instant) -> float:
        """For how long it has been `value`, with now, seconds."""
        if value is not self._value:
            self._value, self._since_s = value, now.steady_s
        return now.steady_s - self._since_s
