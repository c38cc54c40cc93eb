"""The states of a release in which a fault happens."""

from dataclasses import dataclass, field
from typing import Any

from rollout.ledger.state import Deployment, Phase
from rollout.routers.router import ObservedSplit

STABLE, CANARY = "digits:v1", "digits:v2"
PERSON = "chaos"  # who releases the canary and runs the command in `State.asked`

WATCH_S = 12.0
_PLAN: dict[str, Any] = {
    "window": "1s",
    "soak": "6s",  # longer than a process takes to restart, so the release is still in the same step
    "warmup": "none",
    "step_deadline": "60s",
    "risk_budget": "20%",  # at 40 requests/s a step is proven in seconds
    "watch": WATCH_S,
    "holdback": "none",
    "down_after": "4s",
    "signals": {"latency": {"slower_than_ms": [1000], "tolerance": 2}},
}


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A state: how a release reaches it, and how to detect that."""

    name: str
    phase: Phase | None  # None: there is no release
    weight_percent: float = 0
    is_bad: bool = False  # most requests to the canary fail from the moment of the fault on
    steps: tuple[str | int, ...] = (50, 100)
    keys: dict[str, Any] = field(default_factory=dict)  # keys of the plan that differ from `_PLAN`
    asked: str | None = None  # the command that a person runs in the release's first step

    def plan(self) -> dict[str, Any]:
        """The release's plan."""
        return {**_PLAN, "steps": list(self.steps), **self.keys}

    def is_reached(self, deployment: Deployment) -> bool:
        """Whether the ledger says that the release is in this state."""
        release = deployment.active
        if self.phase is None or release is None:
            return self.phase is None
        return release.phase is self.phase and (
            self.phase is not Phase.STEPPING or release.weight_percent == self.weight_percent
        )

    def is_in_force(self, split: ObservedSplit) -> bool:
        """Whether the gateway's split is that of this state."""
        if self.phase is Phase.WATCHING:
            return split.stable == CANARY
        return (split.canary, split.canary_percent) == (CANARY, self.weight_percent)


IDLE = State("no release", None)
STARTING = State("starting", Phase.STARTING)
SHADOW = State("shadow", Phase.STEPPING, 0, steps=("shadow", 100))
SHADOW_BAD = State("shadow, bad", Phase.STEPPING, 0, is_bad=True, steps=("shadow", 100))
STEP_10 = State("10 %", Phase.STEPPING, 10, steps=(10, 50, 100))
STEP_10_BAD = State("10 %, bad", Phase.STEPPING, 10, is_bad=True, steps=(10, 50, 100))
STEP_50 = State("50 %", Phase.STEPPING, 50)
STEP_50_BAD = State("50 %, bad", Phase.STEPPING, 50, is_bad=True)
WATCHING = State("watch", Phase.WATCHING, keys={"soak": "2s"})
WATCHING_BAD = State("watch, bad", Phase.WATCHING, is_bad=True, keys={"soak": "2s"})
PAUSED = State("paused", Phase.STEPPING, 50, asked="pause")  # until the fault is undone
PROMOTING = State("promoting", Phase.STEPPING, 50, asked="promote")  # a person has just promoted it at 50 %
LEAVING = State("leaving", Phase.STEPPING, 50, asked="abort")  # a person has just aborted it at 50 %

STATES = (
    IDLE,
    STARTING,
    SHADOW,
    SHADOW_BAD,
    STEP_10,
    STEP_10_BAD,
    STEP_50,
    STEP_50_BAD,
    WATCHING,
    WATCHING_BAD,
    PAUSED,
    PROMOTING,
    LEAVING,
)
