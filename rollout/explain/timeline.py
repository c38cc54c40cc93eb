"""What happened in one release, arranged for `why`, the status page and the report."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from math import inf

from rollout.explain.callers import labels_by_caller
from rollout.explain.earlier import words as earlier_words
from rollout.explain.format import clock
from rollout.explain.labels import Labels, labels_of
from rollout.format import weight
from rollout.judge import Judgement, Pair, SignalJudgement, Window
from rollout.ledger import events as e
from rollout.ledger.findings import DriftReport, PreflightResult
from rollout.ledger.state import Deployment, Phase, Release, apply
from rollout.signals.catalogue import ANSWERED_ELSEWHERE, WATCHED_ERRORS
from rollout.spec import RolloutSpec


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the release's story."""

    at_s: float
    # `requested`, `preflighted`, `ready`, `step`, `paused`, `resumed`, `asked`, `not_needed`, `ended` or an outcome.
    action: str
    title: str
    reason: str
    by: str
    evidence: Judgement | None = None
    weight_percent: float | None = None  # the canary's weight from then on; None: unchanged


@dataclass(frozen=True, slots=True)
class SignalTick:
    """One signal in one tick."""

    window: Window  # the new events
    is_users: bool  # users' requests; False: copies
    evidence: SignalJudgement  # including this tick


@dataclass(frozen=True, slots=True)
class Saved:
    """Requests of one tick that failed at one version and that the other version answered."""

    window: Window  # `bad` is their number
    is_users: bool  # the canary's requests were users'; False: they were copies
    in_watch: bool


@dataclass(frozen=True, slots=True)
class StepSpan:
    """One step: how long it took, and how many requests it had."""

    weight_percent: float
    mirror: bool
    from_s: float  # Unix seconds
    until_s: float | None  # None: it is the present step
    warmup_s: float  # how long of it was warm-up and not judged, seconds
    stable: Pair  # failed and all requests judged in this step
    canary: Pair
    earned_by: Decision  # the decision that gave the canary this weight
    ended_by: Decision | None

    @property
    def name(self) -> str:
        """`shadow`, or the weight."""
        return "shadow" if self.mirror else weight(self.weight_percent)


@dataclass(frozen=True, slots=True)
class FailedSignal:
    """The signal because of which the judge rolled the canary back."""

    signal: str
    judged: SignalJudgement  # at that moment
    evidence: Judgement  # of all signals at that moment


@dataclass(frozen=True, slots=True)
class Timeline:
    """One release from its request to its end, or to now."""

    number: int
    canary: str
    stable: str
    spec: RolloutSpec
    state: Release
    requested_s: float
    ended_s: float | None
    seen_s: float  # time of the last event in the ledger
    decisions: tuple[Decision, ...]
    notes: tuple[e.Noted, ...]
    preflight: PreflightResult | None  # None: there was no preflight
    drift: DriftReport | None  # the newest; None: it was not compared with stable
    steps: tuple[StepSpan, ...]
    weights: tuple[tuple[float, float, bool], ...]  # (Unix seconds, canary percent, mirrored), as read back
    signals: Mapping[str, Sequence[SignalTick]]  # by signal, the judged ticks that counted it
    judgements: tuple[tuple[float, Judgement], ...]  # (Unix seconds, judgement of all signals)
    whys: tuple[str, ...]  # for each judgement, the reason of the action that followed
    saved: Sequence[Saved]
    phi: Mapping[str, float]
    user_phi: float | None  # dispersion of the errors over stable's users, as last measured; None: not sticky
    last_evidence: Judgement | None
    until_promotion: Judgement | None  # the last judgement before promotion; None: there was none
    since_promotion: Judgement | None  # the newest judgement of the watch
    last_why: str
    labels: Labels | None  # None: each label counts as it arrives
    callers: tuple[str, ...]  # labels by caller, one sentence for each signal that counts labels
    has_requests: bool  # any request was counted, for either version

    @property
    def about_labels(self) -> tuple[str, ...]:
        """How many labels count, and the labels by caller."""
        return (*((self.labels.sentence,) if self.labels and self.steps else ()), *self.callers)

    @property
    def outcome(self) -> str:
        """`promoted`, `restored`, `rolled_back`, `aborted`, or the release's phase."""
        return ended_as(self.state) or self.state.phase.value

    @property
    def end(self) -> Decision | None:
        """The decision that gave the outcome; None while there is none."""
        return next((d for d in reversed(self.decisions) if d.action == self.state.outcome), None)

    @property
    def failed_signal(self) -> FailedSignal | None:
        """None unless the judge rolled the canary back on a signal's evidence."""
        signal, end = self.state.outcome_signal, self.end
        if signal is None or end is None or end.evidence is None or end.by != "judge":
            return None
        judged = end.evidence.signals.get(signal)
        return FailedSignal(signal, judged, end.evidence) if judged else None

    @property
    def deciding(self) -> Judgement | None:
        """The evidence behind the outcome; for a running release the newest evidence."""
        if self.state.outcome == "promoted":
            # With all traffic on the canary there is no stable to compare with: use the evidence for that step.
            compared = next((step.earned_by.evidence for step in self.steps if step.weight_percent == 100), None)
            return compared or self.until_promotion
        return (self.end.evidence if self.end else None) or self.last_evidence

    @property
    def crossed_before(self) -> tuple[float, str] | None:
        """When all evidence was first enough to fail, Unix seconds, and why that decided nothing; None: never so."""
        over = (
            (at_s, why)
            for (at_s, judged), why in zip(self.judgements, self.whys, strict=True)
            if judged.log_e >= judged.threshold
        )
        first = next(over, None)
        is_decided = first is None or (self.end is not None and first[0] >= self.end.at_s - self.spec.window / 2)
        return None if is_decided else first

    @property
    def shown_evidence(self) -> Judgement | None:
        """The newest evidence of every signal; for a promoted version the evidence at promotion."""
        return self.deciding if self.state.outcome == "promoted" else self.last_evidence

    @property
    def first_canary_s(self) -> float | None:
        """When the first user's request could reach the canary, Unix seconds."""
        return next((at_s for at_s, percent, _ in self.weights if percent > 0), None)

    @property
    def out_of_traffic_s(self) -> float | None:
        """When the canary was at weight 0 again, read back from the gateway, Unix seconds."""
        if self.state.outcome not in ("rolled_back", "aborted"):
            return None
        since_last = list(takewhile(lambda entry: entry[1] == 0, reversed(self.weights)))
        return since_last[-1][0] if since_last and len(since_last) < len(self.weights) else None

    @property
    def blind_since_s(self) -> float | None:
        """Since when the metric source gives no reading, Unix seconds; None: it gives readings."""
        topics = [note for note in self.notes if note.topic in ("source_unreachable", "source_back")]
        return topics[-1].at_s if topics and topics[-1].topic == "source_unreachable" else None

    @property
    def not_judged(self) -> str | None:
        """What was removed from its plan because it cannot be counted, in words; None: nothing."""
        return next((note.text for note in self.notes if note.topic == "not_counted"), None)

    @property
    def differences(self) -> str | None:
        """The fields in which the canary's answers differ from stable's, in words; None: not known."""
        return next((note.text for note in reversed(self.notes) if note.topic == e.ANSWERS_DIFFER), None)

    @property
    def refused(self) -> str:
        """Requests refused since the last counted request, from the ledger's note; empty: none, or not known."""
        counted_s = max((tick.window.end_s for tick in self.failures if _has_events(tick.window)), default=-inf)
        noted = [note for note in self.notes if note.topic == e.REQUESTS_REFUSED]
        if not noted or noted[-1].at_s <= counted_s:
            return ""
        return f"{noted[-1].text}, as seen at {clock(noted[-1].at_s)} UTC"

    @property
    def watch_interrupted(self) -> str | None:
        """The note that the watch ended early; None: it did not."""
        return next((note.text for note in self.notes if note.topic == e.WATCH_INTERRUPTED), None)

    @property
    def canary_requests(self) -> int:
        """Judged users' requests that the canary answered."""
        return self._answered.total

    @property
    def canary_failures(self) -> int:
        """How many of `canary_requests` failed."""
        return self._answered.bad

    @property
    def _answered(self) -> Pair:
        """Failed and all requests, before promotion and in the watch."""
        return self.users("errors") + self.users(WATCHED_ERRORS)

    @property
    def answered_in_steps(self) -> Pair:
        """Failed and all users' requests that were judged before promotion."""
        return sum((step.canary for step in self.steps if not step.mirror), Pair(0, 0))

    @property
    def canary_saved(self) -> int:
        """How many of its failures stable answered instead."""
        return sum(each.window.canary.bad for each in self.saved if each.is_users)

    @property
    def saved_in_steps(self) -> int:
        """The same, before promotion."""
        return sum(each.window.canary.bad for each in self.saved if each.is_users and not each.in_watch)

    @property
    def failures(self) -> Sequence[SignalTick]:
        """Errors while both versions had traffic, then those of the watch."""
        return [*self.signals.get("errors", ()), *self.signals.get(WATCHED_ERRORS, ())]

    def users(self, signal: str) -> Pair:
        """The canary's counts of `signal` from users' requests; mirrored copies are not users' requests."""
        ticks = self.signals.get(signal, ())
        return sum((tick.window.canary for tick in ticks if tick.is_users), Pair(0, 0))


def _has_events(window: Window) -> bool:
    return window.stable.total > 0 or window.canary.total > 0


def ended_as(release: Release) -> str | None:
    """How a release ended, in one word; None: it has not ended."""
    return "restored" if release.restore and release.outcome == "promoted" else release.outcome


def timeline(events: Iterable[e.Event]) -> Timeline:
    """The timeline of one release's events, oldest first.

    Raises: ValueError if they do not begin with its request.
    """
    own = list(events)
    request = own[0] if own else None
    if not isinstance(request, e.ReleaseRequested):
        raise ValueError("a release's events begin with its request")
    state, of_warmup = _folded(own)
    if state is None:
        raise ValueError("a release's request makes a release")
    ticks = [event for event in own if isinstance(event, e.Ticked)]
    decisions = tuple(decision for event in own if (decision := _decision(event, request)))
    judged = [event for place, event in enumerate(own) if isinstance(event, e.Ticked) and place not in of_warmup]
    applied = [event for event in own if isinstance(event, e.Applied)]
    return Timeline(
        number=request.release or 0,
        canary=request.tag,
        stable=request.stable,
        spec=request.spec,
        state=state,
        requested_s=request.at_s,
        ended_s=state.phase_since_s if state.phase is Phase.ENDED else None,
        seen_s=own[-1].at_s,
        decisions=decisions,
        notes=tuple(event for event in own if isinstance(event, e.Noted)),
        preflight=next((event.result for event in own if isinstance(event, e.Preflighted)), None),
        drift=next((event.report for event in reversed(own) if isinstance(event, e.DriftMeasured)), None),
        steps=_steps(own, decisions, of_warmup),
        weights=tuple((event.at_s, _canary_percent(event, request.tag), event.mirror) for event in applied),
        signals=_by_signal(judged),
        saved=_saved(own, of_warmup),
        judgements=tuple((tick.at_s, tick.evidence) for tick in ticks),
        whys=tuple(tick.why for tick in ticks),
        phi=state.phi,
        user_phi=ticks[-1].user_phi if ticks else None,
        last_evidence=_last_evidence(ticks),
        until_promotion=_last_of(own, since=False),
        since_promotion=_last_of(own, since=True),
        last_why=ticks[-1].why if ticks else "",
        callers=labels_by_caller((t.windows for t in ticks), canary=request.tag, stable=request.stable),
        labels=labels_of(request.spec, [t.windows for t in ticks if WATCHED_ERRORS not in t.evidence.signals]),
        has_requests=any(
            window.stable.total or window.canary.total
            for tick in ticks
            for window in tick.windows
            if window.signal == "errors"
        ),
    )


def _folded(events: Sequence[e.Event]) -> tuple[Release | None, frozenset[int]]:
    """The release after all its events, and the indices of the ticks in which the canary was warming up."""
    deployment, of_warmup = Deployment(), set()
    for place, event in enumerate(events):
        if isinstance(event, e.Ticked) and deployment.release and deployment.release.is_warming_up:
            of_warmup.add(place)
        deployment = apply(deployment, event)
    return deployment.release, frozenset(of_warmup)


def _canary_percent(event: e.Applied, canary: str) -> float:
    """The canary's share of the traffic, percent; a promoted canary is the stable of the split."""
    return 100 if event.stable == canary else event.weight_percent if event.canary == canary else 0


def _last_evidence(ticks: list[e.Ticked]) -> Judgement | None:
    """The newest evidence of all signals: a watch judges only its own signal, the others keep their last evidence."""
    if not ticks:
        return None
    last = ticks[-1].evidence
    compared = next((t.evidence for t in reversed(ticks) if WATCHED_ERRORS not in t.evidence.signals), last)
    return replace(last, signals={**compared.signals, **last.signals})


def _last_of(events: Sequence[e.Event], *, since: bool) -> Judgement | None:
    """The last judgement before the promotion, or, with `since`, after it; None where there is none."""
    if (at := _place_of_promotion(events)) is None:
        return None
    ticks = [event for event in (events[at:] if since else events[:at]) if isinstance(event, e.Ticked)]
    return ticks[-1].evidence if ticks else None


def _place_of_promotion(events: Sequence[e.Event]) -> int | None:
    return next((place for place, event in enumerate(events) if isinstance(event, e.Promoted)), None)


def _by_signal(ticks: list[e.Ticked]) -> dict[str, list[SignalTick]]:
    signals: defaultdict[str, list[SignalTick]] = defaultdict(list)
    for tick in ticks:
        evidence = tick.evidence.signals
        for window in tick.windows:
            is_watch = window.signal == "errors" and WATCHED_ERRORS in evidence
            name = WATCHED_ERRORS if is_watch else window.signal
            if name in evidence:
                signals[name].append(SignalTick(window, is_users=not tick.mirror, evidence=evidence[name]))
    return dict(signals)


def _saved(events: Sequence[e.Event], of_warmup: Collection[int]) -> Sequence[Saved]:
    """Requests answered by the other version. The ledger's order tells watch from steps; their signals may be equal."""
    promoted = _place_of_promotion(events)
    return [
        Saved(window, is_users=not event.mirror, in_watch=promoted is not None and place > promoted)
        for place, event in enumerate(events)
        if isinstance(event, e.Ticked) and place not in of_warmup
        for window in event.windows
        if window.signal == ANSWERED_ELSEWHERE
    ]


@dataclass(slots=True)
class _Counted:
    """The counts of one step."""

    errors: list[Window]  # judged windows
    warmup_s: float = 0.0  # time that was not judged, seconds


def _counted_in_steps(events: Sequence[e.Event], of_warmup: Collection[int]) -> list[_Counted]:
    """The counts of each step, in the order of the ledger, because the times of events may go back."""
    steps: list[_Counted] = []
    is_in_step = False
    for place, event in enumerate(events):
        if isinstance(event, e.StepEntered):
            steps.append(_Counted([]))
        is_in_step = isinstance(event, e.StepEntered) or (
            is_in_step and not isinstance(event, e.Promoted | e.RolledBack | e.Aborted)
        )
        if isinstance(event, e.Ticked) and is_in_step:
            if place in of_warmup:
                steps[-1].warmup_s += event.window_s
            else:
                steps[-1].errors += [window for window in event.windows if window.signal == "errors"]
    return steps


def _steps(
    events: Sequence[e.Event], decisions: tuple[Decision, ...], of_warmup: Collection[int]
) -> tuple[StepSpan, ...]:
    entered = [event for event in events if isinstance(event, e.StepEntered)]
    bounds = [d for d in decisions if d.action in ("step", "promoted", "rolled_back", "aborted")]
    spans = []
    counted = _counted_in_steps(events, of_warmup)
    for event, earned_by, ended_by, in_step in zip(entered, bounds, (*bounds[1:], None), counted, strict=False):
        spans.append(
            StepSpan(
                weight_percent=event.weight_percent,
                mirror=event.mirror,
                from_s=event.at_s,
                until_s=ended_by.at_s if ended_by else None,
                warmup_s=in_step.warmup_s,
                stable=sum((window.stable for window in in_step.errors), Pair(0, 0)),
                canary=sum((window.canary for window in in_step.errors), Pair(0, 0)),
                earned_by=earned_by,
                ended_by=ended_by,
            )
        )
    return tuple(spans)


def _decision(event: e.Event, request: e.ReleaseRequested) -> Decision | None:
    spec, promoted = request.spec, "restored: it takes all traffic" if request.restore else "promoted"
    match event:
        case e.ReleaseRequested(tag=tag, stable=stable, by=by, restore=restore) if restore:
            kept_out = ", which goes into quarantine" if restore.quarantine else ""
            despite = ", whatever its preflight finds" if restore.anyway else ""
            title = f"restore of {tag} in place of {stable}{kept_out}{despite}"
            return Decision(event.at_s, "requested", title, restore.reason or "", by)
        case e.ReleaseRequested(tag=tag, stable=stable, by=by, retry=retry, earlier=earlier):
            title = f"{'retry' if retry else 'release'} of {tag} against {stable}"
            return Decision(event.at_s, "requested", title, earlier_words(earlier) if earlier else "", by)
        case e.CanaryReady(took_s=took_s):
            return Decision(event.at_s, "ready", f"canary ready after {took_s:.0f} s", "", "controller")
        case e.Preflighted(result=result):
            outcome = "failed" if result.differences else "passed"
            kinds = ((result.golden_requests, "golden"), (result.recorded_requests, "recorded"))
            replayed = (
                " and ".join(f"{number} {kind} requests" for number, kind in kinds if number) or "routes compared"
            )
            title = f"preflight {outcome}: {replayed}"
            return Decision(event.at_s, "preflighted", title, "; ".join(result.differences), "controller")
        case e.StepEntered(step=step, weight_percent=percent, mirror=mirror, reason=reason, by=by, evidence=evidence):
            of = "" if spec.steps == "auto" or step < 0 else f" (step {step + 1} of {len(spec.steps)})"
            title = f"{'shadow: a copy of every request' if mirror else f'weight {weight(percent)}'}{of}"
            return Decision(event.at_s, "step", title, reason, by, evidence, percent)
        case e.Promoted(reason=reason, by=by, evidence=evidence):
            return Decision(event.at_s, "promoted", promoted, reason, by, evidence, 100)
        case e.RolledBack(signal=signal, reason=reason, by=by, evidence=evidence):
            return Decision(event.at_s, "rolled_back", f"rolled back ({signal})", reason, by, evidence, 0)
        case e.Aborted(reason=reason, by=by):
            return Decision(event.at_s, "aborted", "aborted", reason, by, weight_percent=0)
        case e.Paused(reason=reason, by=by):
            return Decision(event.at_s, "paused", "paused", reason, by)
        case e.Resumed(by=by):
            return Decision(event.at_s, "resumed", "resumed", "", by)
        case e.PersonAsked(reason=reason):
            return Decision(event.at_s, "asked", "waits for a person", reason, "controller")
        case e.PersonNotNeeded():
            return Decision(event.at_s, "not_needed", "no longer waits for a person", "", "controller")
        case e.Ended(outcome=outcome):
            return Decision(event.at_s, "ended", f"over: {outcome.replace('_', ' ')}", "", "controller")
        case _:
            return None
