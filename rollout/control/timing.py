"""When the controller reads the counters. Simulated releases use the same times, so that both see the same windows."""

from rollout.ledger.state import Phase, Release

BEAT_S = 0.5  # between two passes of the control loop: how soon a dead process is seen
IDLE_BEAT_S = 2.0  # the same while no release runs and every version is well; a command ends the wait
UNJUDGED_WINDOWS = 4  # a release that was not judged for this many windows is in trouble
IDLE_WINDOW_S = 2.0  # between readings while no release runs; they calibrate the next release


def window_length_s(release: Release | None) -> float:
    """The time between two readings, seconds."""
    return release.spec.window if release else IDLE_WINDOW_S


def next_reading_s(release: Release | None, now_s: float) -> float:
    """When to read the counters again after a reading at `now_s`, seconds on any clock.

    A reading is also due when a step has soaked. A step that ended between two readings would waste the counts since
    the first of them, because a window that spans a change of weight is evidence for neither weight. Another reading is
    due when the canary has warmed up: events from then on are judged.
    """
    next_s = now_s + window_length_s(release)
    if release is None or release.phase is not Phase.STEPPING:
        return next_s
    if release.is_warming_up:
        return min(next_s, now_s + max(release.spec.warmup_s - release.warmed_s, BEAT_S))
    return next_s if release.has_soaked else min(next_s, now_s + max(release.soak_s - release.seen_s, BEAT_S))
