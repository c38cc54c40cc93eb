"""How many answers an observer read, as a sentence for people who watch or look back at a release."""

from rollout.explain.timeline import Timeline
from rollout.format import count, share
from rollout.signals.catalogue import catalogue

_NEARLY_ALL = 0.95  # not 1, because only successful answers are read


def observed_sentence(release: Timeline) -> str | None:
    """How many of the canary's answers to users were read; None where nearly all were, or none are read."""
    if not release.spec.answers:
        return None
    read, answered = max((_read(name, release) for name in release.signals), default=(0, 0))
    if not read or read >= _NEARLY_ALL * answered:
        return None
    return (
        f"Of {count(answered)} answers of {release.canary} to users {count(read)} were read ({share(read / answered)}; "
        f"`observe` is {release.spec.observe}): classes, confidence and labels cover these, errors and latency all."
    )


def _read(signal: str, release: Timeline) -> tuple[int, int]:
    """The number of answers read, by a signal that counts each of them, and of requests in the same time."""
    row = catalogue().in_plans.get(signal.partition(":")[0])
    if row is None or not row.read_from or not row.is_partition:
        return 0, 0
    read = {tick.window.end_s: tick.window.canary.total for tick in release.signals[signal] if tick.is_users}
    answered = (tick.window.canary.total for tick in release.failures if tick.window.end_s in read and tick.is_users)
    return sum(read.values()), sum(answered)
