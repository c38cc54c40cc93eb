"""What the API and the metrics may see of the control loop."""

from collections.abc import Mapping
from dataclasses import dataclass

from rollout.interfaces import Health, ObservedSplit
from rollout.judge import Judgement
from rollout.state import Deployment


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The loop as it was at one beat; replaced as a whole, so that other threads may read it."""

    deployment: Deployment
    observed: ObservedSplit | None
    judgement: Judgement | None
    health: Mapping[str, Health]  # of every version that runs
    last_action: str
    beat_s: float  # Unix seconds
