"""What an alert asks for, held against what is being released. Pure; the API acts on the answer.

It rolls back only the release that it is about: it may come late, resolved, again, or a thousand times.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rollout.interfaces import Health
from rollout.state import Deployment, Phase

SIGNAL = "alert"  # what the ledger names as the reason


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert, firing or resolved."""

    name: str
    summary: str
    is_firing: bool
    asks_for_rollback: bool
    version: str | None  # the tag that it accuses; None: whatever is being released
    began_s: float | None  # Unix seconds; None: nobody knows


def objection(alert: Alert, deployment: Deployment, health: Mapping[str, Health]) -> str | None:
    """Why `alert` rolls nothing back; None: it does.

    Args:
        health: of every version that runs.
    """
    if not alert.is_firing:
        return "it is resolved"
    if not alert.asks_for_rollback:
        return "it does not ask for a rollback"
    release = deployment.active
    if release is None:
        return f"no release is running, and {deployment.stable} is watched no longer"
    if release.phase is Phase.LEAVING:
        return f"{release.name} is on its way out already"
    if alert.version not in (None, release.canary):
        return f"it is about {alert.version}, not about {release.name}"
    if alert.began_s is not None and alert.began_s < release.requested_s:
        return f"it began before {release.name}: what it saw was an earlier one"
    if health.get(release.stable) is not Health.READY:
        return f"{release.stable} is not ready: there is no healthy version to go back to"
    return None
