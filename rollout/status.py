"""What is true now, as one JSON object: read by `kanaria status`, the status page and programs. Pure.

Built from the control loop's snapshot and the newest release's story; it holds no opinion of its own.
"""

from collections.abc import Iterable, Mapping
from math import inf, isfinite
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rollout.explain import one_sentence
from rollout.interfaces import Health, ObservedSplit
from rollout.judge import Pair
from rollout.numerals import weight
from rollout.snapshot import Snapshot
from rollout.spec import SHADOW
from rollout.state import Phase
from rollout.view import Decision, ReleaseView
from rollout.waiting import waiting
from rollout.wording import signal_words

StepState = Literal["done", "current", "left", "next"]  # left: the release ended here without promotion
CLIENT_SPAN_S = 30.0  # what users had lately
LAST_DECISIONS = 5


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VersionView(_Part):
    """One version that runs, or should."""

    tag: str
    health: str  # `absent`, `starting`, `ready`, `unready`, `dead`
    weight_percent: float | None  # share of traffic, read back from the gateway; None: it cannot be read
    is_mirrored: bool = False  # gets a copy of every request


class StepView(_Part):
    """One entry of `steps`."""

    name: str  # `shadow`, `25 %`
    state: StepState


class SignalView(_Part):
    """The evidence of one signal."""

    name: str
    title: str
    verdict: str
    log_e: float
    threshold: float | None  # log_e at which it fails the canary alone; None: never, it only bounds the risk
    stable: tuple[int, int]  # (bad, total)
    canary: tuple[int, int]
    excess_upper: float | None


class DecisionView(_Part):
    """One thing that was decided."""

    at_s: float  # Unix seconds
    action: str
    title: str
    reason: str
    by: str


class ClientsView(_Part):
    """What users had in the last half minute, or since the first step, from both versions."""

    span_s: float
    requests: int
    failed: int
    slow: dict[int, float]  # bound, ms -> share of answers slower than it


class ReleaseStatus(_Part):
    """The newest release, running or over."""

    number: int
    canary: str
    stable: str
    phase: str
    outcome: str | None
    is_paused: bool
    requested_s: float
    by: str
    sentence: str
    steps: tuple[StepView, ...]
    waits_for: str | None
    more_requests_needed: int | None
    eta_s: float | None
    deadline_s: float | None
    verdict: str | None
    log_e: float | None
    threshold: float | None
    signals: tuple[SignalView, ...]  # strongest evidence first
    decisions: tuple[DecisionView, ...]  # the last ones, newest last


class StatusView(_Part):
    """Everything that a person looks for first."""

    name: str
    at_s: float  # last beat of the control loop, Unix seconds
    stable: VersionView | None
    canary: VersionView | None
    release: ReleaseStatus | None
    clients: ClientsView | None  # None when nothing was measured lately, and where no step is judged
    quarantined: dict[str, str]  # tag -> why
    last_action: str


def strongest(signals: Iterable[SignalView]) -> list[SignalView]:
    """Of each family of signals the one with the strongest evidence, in the order given."""
    families: dict[str, SignalView] = {}
    for signal in signals:
        families.setdefault(signal.name.partition(":")[0], signal)
    return list(families.values())


def build_status(name: str, snapshot: Snapshot, release: ReleaseView | None) -> StatusView:
    """The status of the deployment `name`; `release` is the newest one."""
    deployment, split, health = snapshot.deployment, snapshot.observed, snapshot.health
    active = deployment.active
    canary = None
    if active and deployment.stable:
        canary = active.canary if active.canary != deployment.stable else active.stable
    return StatusView(
        name=name,
        at_s=snapshot.beat_s,
        stable=_version(deployment.stable, split, health) if deployment.stable else None,
        canary=_version(canary, split, health) if canary else None,
        release=_release(release, snapshot.beat_s) if release else None,
        clients=_clients(release, snapshot.beat_s) if release else None,
        quarantined=dict(deployment.quarantined),
        last_action=snapshot.last_action,
    )


def _version(tag: str, split: ObservedSplit | None, health: Mapping[str, Health]) -> VersionView:
    percent = None
    if split is not None:
        percent = {split.stable: split.stable_percent, split.canary: split.canary_percent}.get(tag, 0)
    return VersionView(
        tag=tag,
        health=health.get(tag, Health.ABSENT).value,
        weight_percent=percent,
        is_mirrored=split is not None and split.mirror and split.canary == tag,
    )


def _release(release: ReleaseView, now_s: float) -> ReleaseStatus:
    wait, evidence = waiting(release, now_s), release.last_evidence
    signals = [
        SignalView(
            name=signal,
            title=signal_words(signal, release.spec).title,
            verdict=record.verdict,
            log_e=record.log_e,
            threshold=record.threshold if isfinite(record.threshold) else None,
            stable=record.stable,
            canary=record.canary,
            excess_upper=record.excess_upper,
        )
        for signal, record in (evidence.signals.items() if evidence else ())
    ]
    return ReleaseStatus(
        number=release.number,
        canary=release.canary,
        stable=release.stable,
        phase=release.state.phase.value,
        outcome=release.state.outcome,
        is_paused=release.state.is_paused,
        requested_s=release.requested_s,
        by=release.state.by,
        sentence=one_sentence(release, now_s=now_s),
        steps=_steps(release),
        waits_for=wait.text if wait else None,
        more_requests_needed=wait.more_requests if wait else None,
        eta_s=wait.eta_s if wait else None,
        deadline_s=wait.deadline_s if wait else None,
        verdict=evidence.verdict if evidence else None,
        log_e=evidence.log_e if evidence else None,
        threshold=evidence.threshold if evidence else None,
        signals=tuple(sorted(signals, key=lambda signal: (signal.threshold or inf) - signal.log_e)),
        decisions=tuple(decision_view(decision) for decision in release.decisions[-LAST_DECISIONS:]),
    )


def decision_view(made: Decision) -> DecisionView:
    """One decision as it is shown."""
    return DecisionView(at_s=made.at_s, action=made.action, title=made.title, reason=made.reason, by=made.by)


def _steps(release: ReleaseView) -> tuple[StepView, ...]:
    """Every step with how far it came; of automatic steps those taken, and the end."""
    taken = [step.name for step in release.steps]
    if release.spec.steps == "auto":
        ahead = ["100 %"] if "100 %" not in taken else []
    else:
        ahead = [SHADOW if step == SHADOW else weight(step) for step in release.spec.steps][len(taken) :]
    last: StepState = "done" if release.outcome == "promoted" else "left" if release.state.outcome else "current"
    return (
        *(StepView(name=name, state="done") for name in taken[:-1]),
        *(StepView(name=name, state=last) for name in taken[-1:]),
        *(StepView(name=name, state="next") for name in ahead),
    )


def _clients(release: ReleaseView, now_s: float) -> ClientsView | None:
    """Users' answers of both versions; copies that a shadow got are not users' requests.

    Only steps keep counts: before the first and after the last of them nothing here knows of the users.
    """
    if release.state.phase is not Phase.STEPPING or not release.steps:
        return None
    lately = {signal: _lately(release, signal, now_s) for signal in release.signals}
    requests = lately.get("errors", Pair(0, 0))
    if not requests.total:
        return None
    slow = {
        int(signal.removeprefix("latency:")): pair.bad / pair.total
        for signal, pair in lately.items()
        if signal.startswith("latency:") and pair.total
    }
    return ClientsView(
        span_s=min(CLIENT_SPAN_S, now_s - release.steps[0].from_s),
        requests=requests.total,
        failed=requests.bad,
        slow=dict(sorted(slow.items())),
    )


def _lately(release: ReleaseView, signal: str, now_s: float) -> Pair:
    series = release.signals[signal]
    mirrored = [(step.from_s, step.until_s or now_s) for step in release.steps if step.mirror]
    total = Pair(0, 0)
    for at_s, stable, canary in zip(series.at_s, series.stable, series.canary, strict=True):
        if at_s > now_s - CLIENT_SPAN_S:
            is_copy = any(begin < at_s <= end for begin, end in mirrored)
            total += stable if is_copy else stable + canary
    return total
