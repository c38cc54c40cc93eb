"""When the controller reads the counters: after every window, and at the end of a soak."""

from dataclasses import replace

import pytest

from rollout.control.timing import IDLE_WINDOW_S, next_reading_s
from rollout.ledger.state import Phase, Release
from rollout.spec import RolloutSpec


def release(phase: Phase, *, soak: float, seen_s: float = 0.0) -> Release:
    spec = RolloutSpec(window=5, soak=soak)
    return Release(1, "m:v2", "m:v1", spec, requested_s=0.0, by="ann", phase=phase, seen_s=seen_s)


@pytest.mark.parametrize(
    ("seen_s", "soak", "expected"),
    [(0.0, 10, 105.0), (5.5, 10, 104.5), (10.0, 10, 105.0), (0.0, 3, 103.0), (15.0, 60, 105.0), (9.8, 10, 100.5)],
)
def test_a_step_that_has_soaked_is_read_at_once(seen_s: float, soak: float, expected: float) -> None:
    """The step may end with that reading, and no count between two readings is lost."""
    assert next_reading_s(release(Phase.STEPPING, soak=soak, seen_s=seen_s), 100.0) == expected


@pytest.mark.parametrize(("warmed_s", "expected"), [(0.0, 105.0), (57.5, 102.5), (60.0, 103.0)])
def test_a_canary_that_is_warm_is_read_at_once(warmed_s: float, expected: float) -> None:
    """Counts from then on are judged, and the soak begins."""
    spec = RolloutSpec(window=5, soak=3, warmup=60)
    shadow = Release(1, "m:v2", "m:v1", spec, requested_s=0.0, by="ann", phase=Phase.STEPPING, mirror=True)
    assert next_reading_s(replace(shadow, warmed_s=warmed_s), 100.0) == expected


def test_a_soak_has_no_effect_outside_steps() -> None:
    """While starting and watching, the counters are read once a window."""
    assert [next_reading_s(release(phase, soak=3), 101.0) for phase in (Phase.STARTING, Phase.WATCHING)] == [106.0] * 2


def test_without_a_release_stable_is_read_for_the_next_one() -> None:
    """Its history calibrates the judge."""
    assert next_reading_s(None, 7.0) == 7.0 + IDLE_WINDOW_S
