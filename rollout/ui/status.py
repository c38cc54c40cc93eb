"""The present status as one JSON object, for `kanaria status`, the status page and programs.

It is built from the control loop's snapshot and the newest release's timeline.
"""

from collections.abc import Iterable, Sequence
from math import inf, isfinite
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rollout.control.snapshot import Snapshot
from rollout.explain.asked import by_itself, time_left_s
from rollout.explain.budget import budget_sentence
from rollout.explain.choices import Choice, choices
from rollout.explain.compared import compared_sentence
from rollout.explain.earlier import words as earlier_words
from rollout.explain.timeline import Decision, SignalTick, Timeline, ended_as
from rollout.explain.waiting import Wait, waiting
from rollout.explain.why import caution, one_sentence
from rollout.fleet import Health
from rollout.format import weight
from rollout.judge import Judgement, Pair, SignalJudgement, SignalRule, Verdict, number_words
from rollout.ledger.state import Phase
from rollout.spec import SHADOW
from rollout.ui.trace import TraceView, trace

StepState = Literal["done", "current", "left", "next"]  # left: the release ended here without promotion
CLIENT_SPAN_S = 30.0  # users' requests are counted over the last so many seconds
LAST_DECISIONS = 5


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VersionView(_Part):
    """One version that runs, or should."""

    tag: str
    health: str  # `absent`, `starting`, `ready`, `unready`, `dead`
    weight_percent: float | None  # share of traffic, read back from the gateway; None: it cannot be read
    is_mirrored: bool = False  # gets a copy of every request
    restarts: int = 0  # workers that ended by themselves since it was started
    preparing: str = ""  # what is done to make its environment; it begins to load after that


class StepView(_Part):
    """One entry of `steps`."""

    name: str  # `shadow`, `25 %`
    state: StepState


class MeansView(_Part):
    """The means of a signal whose events are numbers, in words."""

    stable: str | None  # None: no numbers yet
    canary: str | None
    difference: str  # how much more or less canary's is, and what the true difference may be
    is_said_only: bool  # it decides nothing


class SignalView(_Part):
    """The evidence of one signal."""

    name: str
    title: str
    verdict: Verdict
    log_e: float
    threshold: float | None  # log_e at which it fails the canary alone; None: never, it only bounds the risk
    stable: Pair
    canary: Pair
    excess_upper: float | None
    means: MeansView | None = None  # where events are numbers


class WatchView(_Part):
    """The evidence since the promotion; that of the steps stays as it was when it decided."""

    verdict: Verdict
    log_e: float
    threshold: float
    signals: tuple[SignalView, ...]  # strongest evidence first


class DecisionView(_Part):
    """One thing that was decided."""

    at_s: float  # Unix seconds
    action: str
    title: str
    reason: str
    by: str


class ClientsView(_Part):
    """Users' requests to both versions in the last half minute, or since the first step."""

    span_s: float
    requests: int
    failed: int
    slow: dict[int, float]  # bound, ms -> share of answers slower than it


class ChoiceView(_Part):
    """One command that would be accepted now."""

    name: str  # as in `rollout.explain.choices`
    tag: str | None
    command: str  # as it is typed
    effect: str  # what it will do


class AskedView(_Part):
    """That the release goes no further without a person."""

    since_s: float  # Unix seconds
    reason: str
    left_s: float | None  # measured time until it is rolled back; None: nothing happens by itself
    by_itself: str  # what happens if nobody decides, one sentence


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
    is_restore: bool = False  # it takes all traffic as soon as it is ready, without steps
    earlier: str | None  # what it knows of the release before of the same versions
    steps: tuple[StepView, ...]
    waits_for: str | None
    more_requests_needed: int | None
    eta_s: float | None
    deadline_s: float | None
    labels: str | None = None  # how many count, and how many wait; whose say what. None: neither is known
    budget: str | None = None  # how many of users' requests may have been harmed; None: their number does not matter
    compared: str | None = None  # what is asked of both versions in a step; None: nothing
    verdict: Verdict | None
    log_e: float | None
    threshold: float | None
    signals: tuple[SignalView, ...]  # strongest evidence first
    decisions: tuple[DecisionView, ...]  # the last ones, newest last
    watch: WatchView | None = None  # None: it was not promoted, or nothing was judged since
    caution: str | None = None  # what makes the evidence weaker than usual
    not_judged: str | None = None  # what was left out because it cannot be counted
    asked: AskedView | None = None  # None: no person is needed
    trace: TraceView | None = None  # None: nothing was counted yet


class StatusView(_Part):
    """Everything that a person wants to see first."""

    name: str
    at_s: float  # last beat of the control loop, Unix seconds
    stable: VersionView | None
    canary: VersionView | None  # after promotion the version before, until the watch is over
    release: ReleaseStatus | None
    clients: ClientsView | None  # None when nothing was measured recently, and where no step is judged
    quarantined: dict[str, str]  # tag -> why
    last_action: str
    canary_role: Literal["canary", "before"] = "canary"
    troubles: tuple[str, ...] = ()  # what a person must see to, the worst first
    gateway: str = "unknown"  # what a new client meets: `ready`, `full`, `silent`
    choices: tuple[ChoiceView, ...] = ()  # what a person may command now


def strongest(signals: Iterable[SignalView]) -> list[SignalView]:
    """Of each family of signals the one with the strongest evidence, in the order given."""
    families: dict[str, SignalView] = {}
    for signal in signals:
        families.setdefault(signal.name.partition(":")[0], signal)
    return list(families.values())


def build_status(name: str, snapshot: Snapshot, release: Timeline | None) -> StatusView:
    """The status; `release` is the newest one. It has the model's name, or `name` before there is a model."""
    deployment = snapshot.deployment
    active = deployment.active
    canary = None
    if active and deployment.stable:
        canary = active.canary if active.canary != deployment.stable else active.stable
    return StatusView(
        name=deployment.stable.partition(":")[0] if deployment.stable else name,
        at_s=snapshot.beat_s,
        stable=_version(deployment.stable, snapshot) if deployment.stable else None,
        canary=_version(canary, snapshot) if canary else None,
        release=_release(release, snapshot) if release else None,
        canary_role="before" if active and active.canary == deployment.stable else "canary",
        clients=_clients(release, snapshot.beat_s) if release else None,
        quarantined=dict(deployment.quarantined),
        last_action=snapshot.last_action,
        troubles=snapshot.troubles,
        gateway=snapshot.gateway.value,
        choices=tuple(_choice(choice) for choice in choices(deployment)),
    )


def _choice(choice: Choice) -> ChoiceView:
    return ChoiceView(name=choice.name, tag=choice.tag, command=choice.command, effect=choice.effect)


def _asked(release: Timeline) -> AskedView | None:
    asked = release.state.asked
    if asked is None:
        return None
    left_s = time_left_s(release.state)
    return AskedView(since_s=asked.at_s, reason=asked.reason, left_s=left_s, by_itself=by_itself(release.state))


def _version(tag: str, snapshot: Snapshot) -> VersionView:
    split = snapshot.observed
    percent = None
    if split is not None:
        percent = {split.stable: split.stable_percent, split.canary: split.canary_percent}.get(tag, 0)
    return VersionView(
        tag=tag,
        health=snapshot.health.get(tag, Health.ABSENT).value,
        restarts=snapshot.restarts.get(tag, 0),
        preparing=snapshot.preparing.get(tag, ""),
        weight_percent=percent,
        is_mirrored=split is not None and split.mirror and split.canary == tag,
    )


def _release(release: Timeline, snapshot: Snapshot) -> ReleaseStatus:
    now_s, preparing = snapshot.beat_s, snapshot.preparing.get(release.canary)
    is_promoted = release.state.outcome == "promoted"
    wait, evidence = waiting(release, now_s), release.shown_evidence
    sentence = one_sentence(release, now_s=now_s)
    if preparing and release.state.phase is Phase.STARTING:  # no time that it has to load passes
        wait = Wait(f"its environment: {preparing}")
        sentence = f"{release.canary} waits for {wait.text}"
    return ReleaseStatus(
        number=release.number,
        canary=release.canary,
        stable=release.stable,
        phase=release.state.phase.value,
        outcome=ended_as(release.state),
        is_paused=release.state.is_paused,
        requested_s=release.requested_s,
        by=release.state.by,
        sentence=sentence,
        is_restore=release.state.restore is not None,
        earlier=earlier_words(release.state.earlier) if release.state.earlier else None,
        steps=_steps(release),
        waits_for=wait.text if wait else None,
        more_requests_needed=wait.more_requests if wait else None,
        eta_s=wait.eta_s if wait else None,
        deadline_s=wait.deadline_s if wait else None,
        labels=" ".join(release.about_labels) or None,
        budget=budget_sentence(release),
        compared=compared_sentence(release.state),
        verdict=evidence.verdict if evidence else None,
        log_e=evidence.log_e if evidence else None,
        threshold=evidence.threshold if evidence else None,
        signals=_signals(evidence, release) if evidence else (),
        watch=_watch(release.since_promotion, release) if is_promoted and release.since_promotion else None,
        decisions=tuple(decision_view(decision) for decision in release.decisions[-LAST_DECISIONS:]),
        not_judged=release.not_judged,
        caution=caution(release) if release.state.outcome is None else None,
        asked=_asked(release),
        trace=trace(release, now_s),
    )


def _watch(evidence: Judgement, release: Timeline) -> WatchView:
    return WatchView(
        verdict=evidence.verdict,
        log_e=evidence.log_e,
        threshold=evidence.threshold,
        signals=_signals(evidence, release),
    )


def _signals(evidence: Judgement, release: Timeline) -> tuple[SignalView, ...]:
    rules = release.spec.judge_config().rules
    signals = [
        SignalView(
            name=name,
            title=release.spec.words(name).title,
            verdict=signal.verdict,
            log_e=signal.log_e,
            threshold=signal.threshold if isfinite(signal.threshold) else None,
            stable=signal.stable,
            canary=signal.canary,
            excess_upper=signal.excess_upper,
            means=_means(signal, rules.get(name.partition(":")[0])),
        )
        for name, signal in evidence.signals.items()
    ]
    return tuple(sorted(signals, key=lambda signal: (signal.threshold or inf) - signal.log_e))


def _means(signal: SignalJudgement, rule: SignalRule | None) -> MeansView | None:
    numbers, difference = rule.numbers if rule else None, signal.difference
    if numbers is None or difference is None:
        return None
    stable, canary, seen = difference.stable, difference.canary, ""
    if stable is not None and canary is not None:
        seen = f"{number_words.moved(canary - stable, numbers)}, "
    return MeansView(
        stable=number_words.value(stable, numbers) if stable is not None else None,
        canary=number_words.value(canary, numbers) if canary is not None else None,
        difference=f"{seen}{number_words.limits(difference, numbers)}",
        is_said_only=not isfinite(signal.threshold),
    )


def decision_view(made: Decision) -> DecisionView:
    """One decision as it is shown."""
    return DecisionView(at_s=made.at_s, action=made.action, title=made.title, reason=made.reason, by=made.by)


def _steps(release: Timeline) -> tuple[StepView, ...]:
    """Every step with its state; of automatic steps those taken, and the last one. A restored version has none."""
    if release.state.restore:
        return ()
    taken = [step.name for step in release.steps]
    if release.spec.steps == "auto":
        ahead = ["100 %"] if "100 %" not in taken else []
    else:
        ahead = [SHADOW if step == SHADOW else weight(step) for step in release.spec.steps]
        ahead = ahead[release.state.step + 1 :]
    last: StepState = "done" if release.outcome == "promoted" else "left" if release.state.outcome else "current"
    return (
        *(StepView(name=name, state="done") for name in taken[:-1]),
        *(StepView(name=name, state=last) for name in taken[-1:]),
        *(StepView(name=name, state="next") for name in ahead),
    )


def _clients(release: Timeline, now_s: float) -> ClientsView | None:
    """Users' requests to both versions; copies that a shadow got are not users' requests.

    Only steps keep these counts: before the first and after the last step there are none.
    """
    if release.state.phase is not Phase.STEPPING or not release.steps:
        return None
    recent = {signal: _recent(ticks, now_s) for signal, ticks in release.signals.items()}
    requests = recent.get("errors", Pair(0, 0))
    if not requests.total:
        return None
    slow = {
        int(signal.removeprefix("latency:")): pair.bad / pair.total
        for signal, pair in recent.items()
        if signal.startswith("latency:") and pair.total
    }
    return ClientsView(
        span_s=min(CLIENT_SPAN_S, max(0.0, now_s - release.steps[0].from_s) or CLIENT_SPAN_S),
        requests=requests.total,
        failed=requests.bad,
        slow=dict(sorted(slow.items())),
    )


def _recent(ticks: Sequence[SignalTick], now_s: float) -> Pair:
    total = Pair(0, 0)
    for tick in ticks:
        if now_s - CLIENT_SPAN_S < tick.window.end_s <= now_s + CLIENT_SPAN_S:  # later ones: the clock was set back
            total += tick.window.stable + tick.window.canary if tick.is_users else tick.window.stable
    return total
