"""An alert rolls back a release if it is about it, began during it, and a healthy version is there to return to."""

from dataclasses import replace

import pytest

from rollout.control.alerts import LOOKS_BACK_S, Alert, objection
from rollout.fleet import Health
from rollout.ledger.state import Deployment, Phase, Release
from rollout.spec import RolloutSpec

RELEASE = Release(number=7, canary="m:v2", stable="m:v1", spec=RolloutSpec(), requested_s=1000.0, by="ann")
FIRING = Alert("Burns", "5% failed", is_firing=True, asks_for_rollback=True, version="m:v2", began_s=1060.0)
WELL = {"m:v1": Health.READY, "m:v2": Health.READY}


def during(phase: Phase) -> Deployment:
    promoted = phase is Phase.WATCHING
    return Deployment(stable="m:v2" if promoted else "m:v1", release=replace(RELEASE, phase=phase))


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.STEPPING, Phase.WATCHING])
@pytest.mark.parametrize("alert", [FIRING, replace(FIRING, version=None), replace(FIRING, began_s=None)])
def test_an_alert_rolls_back_during_the_release_and_its_watch(phase: Phase, alert: Alert) -> None:
    """An alert without a version or a start time is taken to be about the current release."""
    assert objection(alert, during(phase), WELL) is None


def test_an_alert_about_failures_while_versions_loaded_is_ignored() -> None:
    """The alert looks back five minutes. When they are over, it counts again."""
    assert "40 s ago, when versions were loading" in str(objection(FIRING, during(Phase.WATCHING), WELL, loaded_s=40))
    assert objection(FIRING, during(Phase.WATCHING), WELL, loaded_s=LOOKS_BACK_S) is None


@pytest.mark.parametrize(
    ("alert", "deployment", "health", "words"),
    [
        (replace(FIRING, is_firing=False), during(Phase.STEPPING), WELL, "resolved"),
        (replace(FIRING, asks_for_rollback=False), during(Phase.STEPPING), WELL, "does not ask"),
        (replace(FIRING, version="m:v1"), during(Phase.STEPPING), WELL, "about m:v1"),
        (replace(FIRING, began_s=999.0), during(Phase.STEPPING), WELL, "began before"),
        (FIRING, during(Phase.LEAVING), WELL, "already leaving"),
        (FIRING, during(Phase.ENDED), WELL, "no release is running"),
        (FIRING, during(Phase.STEPPING), WELL | {"m:v2": Health.STARTING}, "m:v2 is loading"),
        (FIRING, Deployment(), {}, "no release is running"),
        (FIRING, during(Phase.WATCHING), WELL | {"m:v1": Health.DEAD}, "no healthy version"),
        (FIRING, during(Phase.WATCHING), {"m:v2": Health.READY}, "no healthy version"),
    ],
)
def test_any_other_alert_changes_nothing_and_says_why(
    alert: Alert, deployment: Deployment, health: dict[str, Health], words: str
) -> None:
    """Each case gives its own reason."""
    assert words in str(objection(alert, deployment, health))
