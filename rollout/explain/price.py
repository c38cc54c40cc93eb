"""What a release cost users, in words."""

from rollout.explain.timeline import Timeline
from rollout.format import count
from rollout.judge import Pair


def price(release: Timeline) -> str:
    """What it cost users."""
    if release.first_canary_s is None:
        return "no user's request reached it"
    return answered_requests(Pair(release.canary_failures, release.canary_requests))


def cost(release: Timeline) -> str:
    """The price; of a promoted version before that, because the watch has a topic of its own."""
    if release.state.outcome != "promoted":
        return price(release)
    before = release.answered_in_steps
    return answered_requests(before) if before.total else "no user's request reached it before it had all traffic"


def answered_requests(counted: Pair) -> str:
    """Failed and all of users' requests, in words."""
    if not counted.total:
        return "none of its requests was counted"
    failed = count(counted.bad) if counted.bad else "none"
    return f"it answered {count(counted.total)} users' requests, {failed} of which failed"
