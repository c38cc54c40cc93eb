"""What happens by itself, and how soon, while a release waits for a person."""

from rollout.format import span
from rollout.ledger.state import Release


def time_left_s(release: Release) -> float | None:
    """Measured seconds until `release` is rolled back because nobody decides; None: nothing happens by itself."""
    if release.asked is None or release.asked.left_s is None or release.is_paused:
        return None
    return max(0.0, release.spec.step_deadline - release.failed_s)


def by_itself(release: Release) -> str:
    """What happens if nobody decides, as one sentence."""
    left_s = time_left_s(release)
    if left_s is None:
        return "It stays as it is until somebody decides, or the reason is gone."
    return f"If nobody decides, it is rolled back in {span(left_s)} of measured time."
