"""The present state of a deployment, folded from the ledger's events. The same events give the same state.

The controller puts `desired(state)` in force; after a crash it folds the ledger again and continues.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from contract.own_answers import NO_ANSWERS, OwnAnswers
from contract.plain_text import read_as
from rollout.judge import JudgeConfig, Judgement, OwnNoise, Pair, Verdict, Window
from rollout.ledger import events as e
from rollout.observe import BY_DEFAULT, Observe
from rollout.signals.segments import MOST_SEGMENTS, Segments
from rollout.spec import RolloutSpec

NO_EVENTS = Pair(0, 0)
_READ_LATE_S = 0.1  # a window may be this much shorter than planned
_LONGEST_SEEN_S = 60.0  # a longer window, after a time without readings, does not count in full


class Phase(Enum):
    """The phase of a release."""

    STARTING = "starting"  # the canary is being started; no request reaches it
    STEPPING = "stepping"  # the canary has a share of the traffic, or a copy of it
    WATCHING = "watching"  # promoted; the previous version is still warm
    LEAVING = "leaving"  # decided; the canary finishes its requests and is stopped
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Weight:
    """A share of the traffic that a release had or may return to."""

    step: int  # -1: before the first step, no traffic
    percent: float = 0
    mirror: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """One attempt to replace stable by a canary."""

    number: int
    canary: str
    stable: str  # the version to go back to
    spec: RolloutSpec
    requested_s: float
    by: str
    tries: int = 1  # including this one, see `ReleaseRequested`
    phase: Phase = Phase.STARTING
    step: int = -1
    weight_percent: float = 0
    mirror: bool = False
    readings: int = 0  # measurements of a canary that was not warming up, in the whole release
    phase_since_s: float = 0.0  # start of the present step or phase, Unix seconds
    measured_s: float = 0.0  # seconds of this step or phase in which the metric source answered
    seen_s: float = 0.0  # seconds of these in windows that counted requests of the canary
    failed_s: float = 0.0  # seconds of these since the judge failed the canary
    warmed_s: float = 0.0  # seconds in the shadow step in which canary requests were counted but not judged
    previous: "Weight | None" = None  # the weight at which the canary passed before this step; None: it returned here
    returned_from_percent: float = 0.0  # the largest weight that was taken back because there was no evidence
    phi: Mapping[str, float] = field(default_factory=dict)
    noise: Mapping[str, OwnNoise] = field(default_factory=dict)
    history_s: float | None = None  # seconds of stable's history behind them; None: not calibrated yet
    stable_errors: Pair = NO_EVENTS  # failed and all requests of stable, before the release and in it
    preflight_differences: tuple[str, ...] | None = None  # None: there was no preflight yet
    earlier: e.EarlierTry | None = None
    restore: e.Restore | None = None  # None: it is a trial
    found_segments: tuple[str, ...] = ()  # segments found where the plan lists none
    is_paused: bool = False
    asked: e.PersonAsked | None = None  # None: no person is needed
    outcome: e.Outcome | None = None
    outcome_signal: str | None = None
    outcome_reason: str | None = None
    is_quarantined: bool = False  # the canary went into quarantine

    @property
    def name(self) -> str:
        return f"release {self.number} ({self.canary})"

    def judge_config(self) -> JudgeConfig:
        """The judge's settings for this try."""
        return self.spec.judge_config(tries=self.tries)

    @property
    def carried(self) -> Mapping[str, float]:
        """By signal, the log evidence carried over from an earlier release of these versions."""
        return self.earlier.carried if self.earlier else {}

    @property
    def segments(self) -> Segments | None:
        """The segments of requests; None: the plan has none. New ones may be found until the canary is promoted."""
        by = self.spec.segments
        if by is None:
            return None
        is_open = not by.values and self.phase is not Phase.WATCHING and len(self.found_segments) < MOST_SEGMENTS
        return Segments(by.header, by.values or self.found_segments, is_open)

    def weight_at(self, step: int) -> float:
        """Weight of a fixed step, percent; 0 for shadow."""
        weight = self.spec.steps[step]
        return 0 if isinstance(weight, str) else weight

    def measured(self, window_s: float, windows: Iterable[Window], evidence: Judgement) -> "Release":
        """The release after one more measurement.

        Args:
            window_s: its length, seconds.
            windows: its counts, of any signals.
            evidence: the judgement on all windows so far.
        """
        errors = [window for window in windows if window.signal == "errors"]
        is_seen = any(window.canary.total for window in errors)
        has_failed = evidence.verdict is Verdict.FAIL
        seen_s = min(window_s, max(self.spec.window, _LONGEST_SEEN_S)) if is_seen else 0.0
        known = replace(self, stable_errors=sum((window.stable for window in errors), self.stable_errors))
        if self.is_warming_up and is_seen:
            return replace(known, warmed_s=self.warmed_s + seen_s)
        return replace(
            known,
            readings=self.readings + 1,
            measured_s=self.measured_s + window_s,
            seen_s=self.seen_s + seen_s,
            failed_s=self.failed_s + window_s if has_failed else 0.0,
        )

    @property
    def is_warming_up(self) -> bool:
        """Whether the canary gets its first copied requests, which are not judged."""
        is_shadow = self.phase is Phase.STEPPING and self.mirror
        return is_shadow and self.warmed_s < self.spec.warmup_s - _READ_LATE_S

    @property
    def soak_s(self) -> float:
        """The minimum time for which the present step is judged, seconds."""
        return self.spec.soak_s(in_shadow=self.mirror)

    @property
    def has_soaked(self) -> bool:
        """Whether the canary was measured for the minimum time of a step."""
        return self.seen_s >= self.soak_s - _READ_LATE_S

    @property
    def was_watched(self) -> bool:
        """Whether the promoted version was measured for the whole length of its watch."""
        return self.seen_s >= self.spec.watch - _READ_LATE_S

    @property
    def held_back_percent(self) -> float:
        """The share of the traffic that the previous version keeps, percent, for comparison with the rest."""
        is_live = self.phase in (Phase.STEPPING, Phase.WATCHING)
        return round(100 * self.spec.holdback, 2) if is_live and self.weight_percent == 100 else 0.0

    @property
    def live_percent(self) -> float:
        """The canary's share of the traffic, percent."""
        return self.weight_percent - self.held_back_percent

    @property
    def compare_percent(self) -> float:
        """Share of each version's requests that also go to the other, percent; 0 where one has all traffic."""
        is_live = self.phase in (Phase.STEPPING, Phase.WATCHING)
        return round(100 * self.spec.compare, 2) if is_live and 0 < self.live_percent < 100 else 0.0

    @property
    def has_pairs(self) -> bool:
        """Whether both versions answer some requests."""
        return self.mirror or self.compare_percent > 0

    @property
    def is_last_step(self) -> bool:
        return self.weight_percent == 100

    @property
    def keeps_out_stable(self) -> bool:
        """Whether the previous version is in quarantine, so that only a person may return to it."""
        return self.phase is Phase.WATCHING and self.restore is not None and self.restore.quarantine


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything that survives a restart."""

    stable: str | None = None
    release: Release | None = None  # the newest one, ended or not
    quarantined: Mapping[str, str] = field(default_factory=dict)  # tag -> why it is in quarantine
    tried: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (stable, canary) -> their newest release
    tries: Mapping[tuple[str, str], int] = field(default_factory=dict)  # the same -> how many releases entered a step
    needs_another: Mapping[str, frozenset[str]] = field(default_factory=dict)  # tag -> people who may not promote it
    promoted: tuple[str, ...] = ()  # every version that a person or the judge ever gave all traffic
    answers: OwnAnswers = NO_ANSWERS  # what is read from answers, by the newest plan
    observe: Observe = BY_DEFAULT  # for how many requests

    @property
    def active(self) -> Release | None:
        """The running release; None: no release is running."""
        return self.release if self.release and self.release.phase is not Phase.ENDED else None

    @property
    def restorable(self) -> tuple[str, ...]:
        """The versions that may be restored; the one promoted last comes first."""
        return tuple(tag for tag in reversed(self.promoted) if tag != self.stable and tag not in self.quarantined)


@dataclass(frozen=True, slots=True)
class Desired:
    """The wanted state of the outside world: which versions run, and which get traffic."""

    running: tuple[str, ...]
    stable: str | None
    canary: str | None = None
    weight_percent: float = 0
    mirror: bool = False
    sticky: str | None = None
    fallback: str | None = None  # answers requests that stable cannot answer
    answers: OwnAnswers = NO_ANSWERS  # what is read from users' answers, by the newest plan
    segments: Segments | None = None
    compare_percent: float = 0


def desired(deployment: Deployment) -> Desired:
    """The state of the outside world that `deployment` asks for."""
    return replace(_desired(deployment), answers=deployment.answers)


def _desired(deployment: Deployment) -> Desired:
    """The same without `answers`, which are read between releases as well."""
    if deployment.stable is None:
        return Desired(running=(), stable=None)
    release = deployment.active
    if release is None or release.phase is Phase.LEAVING:
        return Desired(running=(deployment.stable,), stable=deployment.stable)
    if release.phase is Phase.WATCHING and not release.held_back_percent:
        return Desired(running=(release.canary, release.stable), stable=release.canary, fallback=release.stable)
    return Desired(
        running=(release.stable, release.canary),
        stable=release.stable,
        canary=release.canary,
        weight_percent=release.live_percent,
        mirror=release.mirror,
        sticky=release.spec.sticky,
        segments=release.segments,
        compare_percent=release.compare_percent,
    )


def apply(deployment: Deployment, event: e.Event) -> Deployment:
    """The deployment after `event`."""
    match event:
        case e.StableSet():
            promoted = _promoted(deployment, event.tag)
            return replace(
                deployment, stable=event.tag, promoted=promoted, answers=event.answers, observe=event.observe
            )
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
        case e.SegmentsFound():
            found = (*release.found_segments, *event.names)
            return replace(deployment, release=replace(release, found_segments=found))
        case e.Ticked():
            return replace(deployment, release=release.measured(event.window_s, event.windows, event.evidence))
        case e.Calibrated():
            noise = event.noise
            if noise is None:
                noise = {signal: OwnNoise.alike(phi) for signal, phi in event.phi.items()}
            calibrated = replace(
                release, phi=event.phi, noise=noise, history_s=event.history_s, stable_errors=event.stable_errors
            )
            return replace(deployment, release=calibrated)
        case e.StepEntered():
            tries = {**deployment.tries, (release.stable, release.canary): release.tries}
            return replace(deployment, release=_stepped(release, event), tries=tries)
        case e.Promoted():
            watching = replace(
                release,
                phase=Phase.WATCHING,
                weight_percent=100,
                mirror=False,
                **_begun(event.at_s),
                asked=None,
                outcome="promoted",
                outcome_signal=None,
                outcome_reason=event.reason,
                is_paused=False,
            )
            quarantined = dict(deployment.quarantined)
            if watching.keeps_out_stable:
                quarantined[release.stable] = f"{release.name} replaced it: {event.reason}"
            promoted = _promoted(deployment, release.canary)
            return replace(
                deployment, release=watching, stable=release.canary, quarantined=quarantined, promoted=promoted
            )
        case e.RolledBack():
            return _left(deployment, release, event, "rolled_back", event.signal)
        case e.Aborted():
            return _left(deployment, release, event, "aborted", "person")
        case e.PersonAsked():
            return replace(deployment, release=replace(release, asked=event))
        case e.PersonNotNeeded():
            return replace(deployment, release=replace(release, asked=None))
        case e.Paused():
            return replace(deployment, release=replace(release, is_paused=True))
        case e.Resumed():
            return replace(deployment, release=replace(release, is_paused=False, asked=None, **_begun(event.at_s)))
        case e.Ended():
            needs_another = dict(deployment.needs_another)
            if event.outcome == "promoted":
                needs_another.pop(release.canary, None)
            ended = replace(release, phase=Phase.ENDED, phase_since_s=event.at_s)
            return replace(deployment, release=ended, needs_another=needs_another)


def fold(events: Iterable[e.Event], start: Deployment | None = None) -> Deployment:
    """The deployment after all `events`, oldest first."""
    deployment = start or Deployment()
    for event in events:
        deployment = apply(deployment, event)
    return deployment


def _promoted(deployment: Deployment, tag: str) -> tuple[str, ...]:
    """All promoted versions, `tag` last."""
    return (*(known for known in deployment.promoted if known != tag), tag)


def _begun(at_s: float) -> dict[str, Any]:
    """The fields that are reset at the start of a step or phase."""
    return {"phase_since_s": at_s, "measured_s": 0.0, "seen_s": 0.0, "failed_s": 0.0}


def _stepped(release: Release, event: e.StepEntered) -> Release:
    before = Weight(release.step, release.weight_percent, release.mirror)
    is_return = release.phase is Phase.STEPPING and event.step < release.step
    taken_back = max(release.returned_from_percent, release.weight_percent)
    return replace(
        release,
        phase=Phase.STEPPING,
        step=event.step,
        weight_percent=event.weight_percent,
        mirror=event.mirror,
        previous=None if is_return else before,
        returned_from_percent=taken_back if is_return else release.returned_from_percent,
        asked=None,
        **_begun(event.at_s),
    )


def _requested(deployment: Deployment, event: e.ReleaseRequested) -> Deployment:
    release = Release(
        number=event.release or 0,
        canary=event.tag,
        stable=event.stable,
        spec=event.spec,
        requested_s=event.at_s,
        by=event.by,
        tries=event.tries,
        phase_since_s=event.at_s,
        earlier=event.earlier,
        restore=event.restore,
    )
    tried = dict(deployment.tried)
    if release.restore is None:
        tried[release.stable, release.canary] = release.number
    quarantined = {tag: why for tag, why in deployment.quarantined.items() if tag != event.tag}
    needs_another = dict(deployment.needs_another)
    if event.spec.second_person or event.tag in needs_another:  # a later plan without it does not remove it
        needs_another[event.tag] = needs_another.get(event.tag, frozenset()) | {read_as(event.by)}
    return replace(
        deployment,
        release=release,
        quarantined=quarantined,
        tried=tried,
        needs_another=needs_another,
        answers=event.spec.answers,
        observe=event.spec.observe,
    )


def _left(
    deployment: Deployment, release: Release, event: e.RolledBack | e.Aborted, outcome: e.Outcome, signal: str
) -> Deployment:
    is_quarantined = isinstance(event, e.RolledBack) and event.quarantine
    if release.is_warming_up and event.by == "judge":
        is_quarantined = False  # failures during the warm-up say nothing about the warm canary
    if release.restore and release.phase is Phase.STARTING:
        is_quarantined = False  # it was promoted before, so a failed start says more about this machine
    left = replace(
        release,
        phase=Phase.LEAVING,
        weight_percent=0,
        mirror=False,
        is_paused=False,
        asked=None,
        phase_since_s=event.at_s,
        outcome=outcome,
        outcome_signal=signal,
        outcome_reason=event.reason,
        is_quarantined=is_quarantined,
    )
    quarantined = {tag: why for tag, why in deployment.quarantined.items() if tag != release.stable}
    if is_quarantined:
        quarantined[release.canary] = f"{release.name} was rolled back: {event.reason}"
    return replace(deployment, release=left, stable=release.stable, quarantined=quarantined)
