"""An alert rolls back the release that it is about, if it began in it and there is a healthy version to go back to."""

from dataclasses import replace

import pytest

from rollout.alerts import Alert, objection
from rollout.interfaces import Health
from rollout.spec import RolloutSpec
from rollout.state import Deployment, Phase, Release

RELEASE = Release(number=7, canary="m:v2", stable="m:v1", spec=RolloutSpec(), requested_s=1000.0, by="ann")
FIRING = Alert("Burns", "5% failed", is_firing=True, asks_for_rollback=True, version="m:v2", began_s=1060.0)
WELL = {"m:v1": Health.READY, "m:v2": Health.READY}


def during(phase: Phase) -> Deployment:
    promoted = phase is Phase.WATCHING
    return Deployment(stable="m:v2" if promoted else "m:v1", release=replace(RELEASE, phase=phase))


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.STEPPING, Phase.WATCHING])
@pytest.mark.parametrize("alert", [FIRING, replace(FIRING, version=None), replace(FIRING, began_s=None)])
def test_rolls_back_while_the_release_runs_and_while_it_is_watched(phase: Phase, alert: Alert) -> None:
    """Also one that names no version, or no time: then it is about whatever is released now."""
    assert objection(alert, during(phase), WELL) is None


@pytest.mark.parametrize(
    ("alert", "deployment", "health", "words"),
    [
        (replace(FIRING, is_firing=False), during(Phase.STEPPING), WELL, "resolved"),
        (replace(FIRING, asks_for_rollback=False), during(Phase.STEPPING), WELL, "does not ask"),
        (replace(FIRING, version="m:v1"), during(Phase.STEPPING), WELL, "about m:v1"),
        (replace(FIRING, began_s=999.0), during(Phase.STEPPING), WELL, "began before"),
        (FIRING, during(Phase.LEAVING), WELL, "on its way out"),
        (FIRING, during(Phase.ENDED), WELL, "no release is running"),
        (FIRING, Deployment(), {}, "no release is running"),
        (FIRING, during(Phase.WATCHING), WELL | {"m:v1": Health.DEAD}, "no healthy version"),
        (FIRING, during(Phase.WATCHING), {"m:v2": Health.READY}, "no healthy version"),
    ],
)
def test_else_changes_nothing_and_says_why(
    alert: Alert, deployment: Deployment, health: dict[str, Health], words: str
) -> None:
    """One reason for each."""
    assert words in str(objection(alert, deployment, health))
