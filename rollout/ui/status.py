"""The present status, for `kanaria status`, the status page and programs.

It is built from the control loop's snapshot and the newest release's timeline.
"""

from collections.abc import Sequence
from math import inf, isfinite

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
from rollout.format import in_order, weight
from rollout.judge import Judgement, Pair, SignalJudgement, SignalRule, Window, number_words
from rollout.ledger.state import Phase
from rollout.spec import SHADOW, RolloutSpec
from rollout.ui.trace import trace
from rollout.ui.views import (
    AskedView,
    ChoiceView,
    ClientsView,
    DecisionView,
    MeansView,
    ReleaseStatus,
    SignalView,
    StatusView,
    StepState,
    StepView,
    VersionView,
    WatchView,
)

CLIENT_SPAN_S = 30.0  # seconds over which users' requests are counted
LAST_DECISIONS = 5


def build_status(name: str, snapshot: Snapshot, release: Timeline | None) -> StatusView:
    """The status. Its name is the model's, or `name` before there is a model; `release` is the newest one."""
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
    wait, evidence = waiting(release, now_s, refused=snapshot.refused), release.shown_evidence
    sentence = one_sentence(release, now_s=now_s, refused=snapshot.refused)
    if preparing and release.state.phase is Phase.STARTING:  # the time limit for loading has not begun
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
        signals=signal_views(evidence, release.spec) if evidence else (),
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
        signals=signal_views(evidence, release.spec),
    )


def signal_views(evidence: Judgement, spec: RolloutSpec) -> tuple[SignalView, ...]:
    """The evidence of each signal, the strongest first."""
    rules = spec.judge_config().rules
    signals = [
        SignalView(
            name=name,
            title=spec.words(name).title,
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
    return tuple(sorted(signals, key=lambda signal: ((signal.threshold or inf) - signal.log_e, in_order(signal.name))))


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
    """One decision for display."""
    return DecisionView(at_s=made.at_s, action=made.action, title=made.title, reason=made.reason, by=made.by)


def _steps(release: Timeline) -> tuple[StepView, ...]:
    """Every step with its state; for automatic steps those taken and the last one. A restored version has none."""
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
    """Users' requests to both versions, without copies in the shadow step.

    Only steps have these counts: there are none before the first and after the last step.
    """
    if release.state.phase is not Phase.STEPPING or not release.steps:
        return None
    recent = {signal: _recent(ticks, now_s) for signal, ticks in release.signals.items()}
    requests = recent.get("errors", Pair(0, 0))
    if not requests.total:
        return None
    saved = sum(
        each.window.stable.bad + (each.window.canary.bad if each.is_users else 0)
        for each in release.saved
        if _is_recent(each.window, now_s)
    )
    slow = {
        int(signal.removeprefix("latency:")): pair.bad / pair.total
        for signal, pair in recent.items()
        if signal.startswith("latency:") and pair.total
    }
    return ClientsView(
        span_s=min(CLIENT_SPAN_S, max(0.0, now_s - release.steps[0].from_s) or CLIENT_SPAN_S),
        requests=requests.total,
        failed=max(0, requests.bad - saved),
        saved=saved,
        slow=dict(sorted(slow.items())),
    )


def _recent(ticks: Sequence[SignalTick], now_s: float) -> Pair:
    total = Pair(0, 0)
    for tick in ticks:
        if _is_recent(tick.window, now_s):
            total += tick.window.stable + tick.window.canary if tick.is_users else tick.window.stable
    return total


def _is_recent(window: Window, now_s: float) -> bool:
    return now_s - CLIENT_SPAN_S < window.end_s <= now_s + CLIENT_SPAN_S  # later: the clock was set back
