"""What is true now, folded from the ledger's events. Pure: the same events give the same state.

The controller carries out `desired(state)`; after a crash it folds the ledger again and goes on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from rollout import events as e
from rollout.judge import Pair
from rollout.spec import SHADOW, RolloutSpec

NO_EVENTS = Pair(0, 0)


class Phase(Enum):
    """Where a release is."""

    STARTING = "starting"  # the canary is being started; no request reaches it
    STEPPING = "stepping"  # the canary has a share of the traffic, or a copy of it
    WATCHING = "watching"  # promoted; the version before is still warm
    LEAVING = "leaving"  # decided; the loser finishes its requests and is stopped
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Release:
    """One attempt to replace stable by a canary."""

    number: int
    canary: str
    stable: str  # the version to go back to
    spec: RolloutSpec
    requested_s: float
    by: str
    phase: Phase = Phase.STARTING
    step: int = -1
    weight_percent: float = 0
    mirror: bool = False
    phase_since_s: float = 0.0  # start of the present step or phase, Unix seconds
    measured_s: float = 0.0  # time in this step during which the metric source answered
    phi: Mapping[str, float] = field(default_factory=dict)
    stable_errors: Pair = NO_EVENTS  # failed and all requests of stable, before the release and in it
    preflight_differences: tuple[str, ...] | None = None  # None: it was not tried out yet
    is_paused: bool = False
    outcome: e.Outcome | None = None
    outcome_signal: str | None = None
    outcome_reason: str | None = None

    @property
    def winner(self) -> str:
        """The version that keeps, or gets, all traffic when no canary runs."""
        return self.canary if self.outcome == "promoted" else self.stable

    @property
    def name(self) -> str:
        return f"release {self.number} ({self.canary})"

    def weight_at(self, step: int) -> float:
        """Weight of a fixed step, percent; 0 for shadow."""
        weight = self.spec.steps[step]
        return 0 if isinstance(weight, str) else weight

    @property
    def is_last_step(self) -> bool:
        return self.weight_percent == 100

    @property
    def is_shadow_first(self) -> bool:
        return self.spec.steps != "auto" and self.spec.steps[0] == SHADOW


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything that survives a restart."""

    stable: str | None = None
    release: Release | None = None  # the newest one, ended or not
    quarantined: Mapping[str, str] = field(default_factory=dict)  # tag -> why it may not come back by itself

    @property
    def active(self) -> Release | None:
        """The release that runs now."""
        return self.release if self.release and self.release.phase is not Phase.ENDED else None


@dataclass(frozen=True, slots=True)
class Desired:
    """How the outside world should be: who runs, who gets traffic."""

    running: tuple[str, ...]
    stable: str | None
    canary: str | None = None
    weight_percent: float = 0
    mirror: bool = False
    sticky: str | None = None


def desired(deployment: Deployment) -> Desired:
    """The world that `deployment` asks for."""
    if deployment.stable is None:
        return Desired(running=(), stable=None)
    release = deployment.active
    if release is None or release.phase is Phase.LEAVING:
        return Desired(running=(deployment.stable,), stable=deployment.stable)
    if release.phase is Phase.WATCHING:
        return Desired(running=(release.canary, release.stable), stable=release.canary)
    return Desired(
        running=(release.stable, release.canary),
        stable=release.stable,
        canary=release.canary,
        weight_percent=release.weight_percent,
        mirror=release.mirror,
        sticky=release.spec.sticky,
    )


def apply(deployment: Deployment, event: e.Event) -> Deployment:
    """The deployment after `event`."""
    match event:
        case e.StableSet():
            return replace(deployment, stable=event.tag)
        case e.ReleaseRequested():
            return _requested(deployment, event)
        case e.Applied() | e.Noted() | e.CanaryReady() | e.DriftMeasured():
            return deployment
    release = deployment.active
    if release is None:
        return deployment
    match event:
        case e.Preflighted():
            return replace(deployment, release=replace(release, preflight_differences=event.result.differences))
        case e.Ticked():
            known = sum((Pair(*new.stable) for new in event.counts if new.signal == "errors"), release.stable_errors)
            measured_s = release.measured_s + event.window_s
            return replace(deployment, release=replace(release, measured_s=measured_s, stable_errors=known))
        case e.Calibrated():
            known = Pair(*event.stable_errors)
            return replace(deployment, release=replace(release, phi=event.phi, stable_errors=known))
        case e.StepEntered():
            stepping = replace(
                release,
                phase=Phase.STEPPING,
                step=event.step,
                weight_percent=event.weight_percent,
                mirror=event.mirror,
                phase_since_s=event.at_s,
                measured_s=0.0,
            )
            return replace(deployment, release=stepping)
        case e.Promoted():
            watching = replace(
                release,
                phase=Phase.WATCHING,
                weight_percent=100,
                mirror=False,
                phase_since_s=event.at_s,
                outcome="promoted",
                outcome_signal=None,
                outcome_reason=event.reason,
                is_paused=False,
            )
            return replace(deployment, release=watching, stable=release.canary)
        case e.RolledBack():
            return _left(deployment, release, event, "rolled_back", event.signal)
        case e.Aborted():
            return _left(deployment, release, event, "aborted", "person")
        case e.Paused():
            return replace(deployment, release=replace(release, is_paused=True))
        case e.Resumed():
            return replace(
                deployment, release=replace(release, is_paused=False, phase_since_s=event.at_s, measured_s=0.0)
            )
        case e.Ended():
            return replace(deployment, release=replace(release, phase=Phase.ENDED, phase_since_s=event.at_s))


def fold(events: Iterable[e.Event], start: Deployment | None = None) -> Deployment:
    """The deployment after all `events`, oldest first."""
    deployment = start or Deployment()
    for event in events:
        deployment = apply(deployment, event)
    return deployment


def _requested(deployment: Deployment, event: e.ReleaseRequested) -> Deployment:
    release = Release(
        number=event.release or 0,
        canary=event.tag,
        stable=event.stable,
        spec=event.spec,
        requested_s=event.at_s,
        by=event.by,
        phase_since_s=event.at_s,
    )
    quarantined = {tag: why for tag, why in deployment.quarantined.items() if tag != event.tag}
    return replace(deployment, release=release, quarantined=quarantined)


def _left(
    deployment: Deployment, release: Release, event: e.RolledBack | e.Aborted, outcome: e.Outcome, signal: str
) -> Deployment:
    left = replace(
        release,
        phase=Phase.LEAVING,
        weight_percent=0,
        mirror=False,
        is_paused=False,
        phase_since_s=event.at_s,
        outcome=outcome,
        outcome_signal=signal,
        outcome_reason=event.reason,
    )
    quarantined = dict(deployment.quarantined)
    if outcome == "rolled_back":
        quarantined[release.canary] = f"{release.name} was rolled back: {event.reason}"
    return replace(deployment, release=left, stable=release.stable, quarantined=quarantined)
