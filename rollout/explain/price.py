"""What a release cost users, in words."""

from rollout.explain.timeline import Timeline
from rollout.format import count
from rollout.judge import Pair


def price(release: Timeline) -> str:
    """Users' requests that the canary answered and failed, in words."""
    if release.first_canary_s is None:
        return "no user's request reached it"
    counted = Pair(release.canary_failures, release.canary_requests)
    return answered_requests(counted, saved=release.canary_saved, by=release.stable)


def cost(release: Timeline) -> str:
    """The price; for a promoted version only before promotion, because the watch has its own topic."""
    if release.state.outcome != "promoted":
        return price(release)
    before = release.answered_in_steps
    return before_promotion(release) if before.total else "no user's request reached it before it had all traffic"


def before_promotion(release: Timeline) -> str:
    """The price until promotion."""
    return answered_requests(release.answered_in_steps, saved=release.saved_in_steps, by=release.stable)


def answered_requests(counted: Pair, *, saved: int, by: str) -> str:
    """Failed and all users' requests, in words; `saved` of the failed ones were answered by the version `by`."""
    if not counted.total:
        return "none of its requests was counted"
    failed = count(counted.bad) if counted.bad else "none"
    priced = f"it answered {count(counted.total)} users' requests, {failed} of which failed"
    rescued = min(saved, counted.bad)  # the two are counted separately, so `saved` may be larger
    if not rescued:
        return priced
    all_of_them = "that one" if rescued == 1 else f"all {count(rescued)}"
    which = all_of_them if rescued == counted.bad else f"{count(rescued)} of these {count(counted.bad)}"
    return f"{priced}; {by} answered {which} in its place"
