"""Decides whether an alert may roll back the present release.

An alert may arrive late, resolved, repeatedly or a thousand times; it rolls back only the release that it is about.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rollout.fleet import Health
from rollout.format import span
from rollout.ledger.state import Deployment, Phase

SIGNAL = "alert"  # the ledger's name for this reason
LOOKS_BACK_S = 300.0  # the longest window among the project's own alerts that ask for a rollback


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert, firing or resolved."""

    name: str
    summary: str
    is_firing: bool
    asks_for_rollback: bool
    version: str | None  # the tag that it is about; None: whatever version is being released
    began_s: float | None  # Unix seconds; None: unknown


def objection(
    alert: Alert, deployment: Deployment, health: Mapping[str, Health], *, loaded_s: float = math.inf
) -> str | None:
    """Why `alert` rolls nothing back, in words; None: it rolls the release back.

    Args:
        health: of every version that runs.
        loaded_s: for how long no version with traffic has been loading in this release.
    """
    if not alert.is_firing:
        return "it is resolved"
    if not alert.asks_for_rollback:
        return "it does not ask for a rollback"
    release = deployment.active
    if release is None:
        return f"no release is running, and the watch of {deployment.stable} is over"
    if release.phase is Phase.LEAVING:
        return f"{release.name} is already leaving"
    if alert.version not in (None, release.canary):
        return f"it is about {alert.version}, not about {release.name}"
    if alert.began_s is not None and alert.began_s < release.requested_s:
        return f"it began before {release.name}, so it is about an earlier one"
    if release.keeps_out_stable:
        return f"{release.stable} is in quarantine: only a person can return to it"
    if health.get(release.canary) is Health.STARTING:
        return f"{release.canary} is loading: it has its `startup_deadline`, and its requests go to {release.stable}"
    if health.get(release.stable) is not Health.READY:
        return f"{release.stable} is not ready: there is no healthy version to go back to"
    if loaded_s < LOOKS_BACK_S:
        return (
            f"it counts failures from before {span(loaded_s)} ago, when versions were loading: that is not their fault"
        )
    return None
