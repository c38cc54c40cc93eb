"""How often the controller looks, and how far back. Pure.

The controller lives by it, and a simulated release by the same, so that both see the same windows.
"""

from rollout.state import Phase, Release

BEAT_S = 0.5  # how soon a command or a dead process is seen
IDLE_WINDOW_S = 2.0  # between readings while no release runs; they calibrate the next one
HISTORY_S = 1800.0  # stable's own history that calibrates the judge
RECENT_S = 30.0  # what the absolute guards look at


def next_reading_s(release: Release | None, now_s: float) -> float:
    """When to read the counters again after a reading at `now_s`, Unix seconds.

    Also when a step has soaked: a step that ended between two readings would waste the counts since the first, because
    a window that straddles a change of weight is evidence about neither weight.
    """
    if release is None:
        return now_s + IDLE_WINDOW_S
    next_s = now_s + release.spec.window
    soaked_s = release.phase_since_s + release.spec.soak
    return min(next_s, soaked_s) if release.phase is Phase.STEPPING and soaked_s > now_s else next_s
