"""When the controller looks: every window, and at the end of a soak."""

import pytest

from rollout.pace import IDLE_WINDOW_S, next_reading_s
from rollout.spec import RolloutSpec
from rollout.state import Phase, Release


def release(phase: Phase, *, soak: float) -> Release:
    spec = RolloutSpec(window=5, soak=soak)
    return Release(1, "m:v2", "m:v1", spec, requested_s=0.0, by="ann", phase=phase, phase_since_s=100.0)


@pytest.mark.parametrize(
    ("now_s", "soak", "expected"),
    [(100.5, 10, 105.5), (105.5, 10, 110.0), (110.0, 10, 115.0), (100.5, 3, 103.0), (115.0, 60, 120.0)],
)
def test_a_step_that_has_soaked_is_read_at_once(now_s: float, soak: float, expected: float) -> None:
    """It may end with that reading, and no count between two readings is lost."""
    assert next_reading_s(release(Phase.STEPPING, soak=soak), now_s) == expected


def test_a_soak_matters_in_steps_only() -> None:
    """Starting and watching go by windows."""
    assert [next_reading_s(release(phase, soak=3), 101.0) for phase in (Phase.STARTING, Phase.WATCHING)] == [106.0] * 2


def test_without_a_release_stable_is_read_for_the_next_one() -> None:
    """Its history calibrates the judge."""
    assert next_reading_s(None, 7.0) == 7.0 + IDLE_WINDOW_S
