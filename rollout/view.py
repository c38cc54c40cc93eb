"""What happened in one release, shaped for reading: `why`, the status page and the report. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from rollout import events as e
from rollout.interfaces import DriftReport, PreflightResult
from rollout.judge import Pair
from rollout.numerals import weight
from rollout.spec import RolloutSpec
from rollout.state import Phase, Release, fold
from rollout.watch import WATCHED_ERRORS


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the release's story."""

    at_s: float
    action: str  # `requested`, `preflighted`, `ready`, `step`, `paused`, `resumed`, `ended` or an outcome
    title: str
    reason: str
    by: str
    evidence: e.EvidenceRecord | None = None
    weight_percent: float | None = None  # the canary's from then on; None: not changed by it


@dataclass(frozen=True, slots=True)
class SignalSeries:
    """One signal over the release; the lists are of one length, one entry for each tick that counted it."""

    at_s: list[float] = field(default_factory=list)  # Unix seconds
    log_e: list[float] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    stable: list[Pair] = field(default_factory=list)  # new events in that tick
    canary: list[Pair] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StepSpan:
    """One step as it went: how long, on how many requests."""

    weight_percent: float
    mirror: bool
    from_s: float  # Unix seconds
    until_s: float | None  # None: it is the present step
    stable: Pair  # failed and all requests judged in this step
    canary: Pair
    earned_by: Decision  # what gave the canary this weight
    ended_by: Decision | None

    @property
    def name(self) -> str:
        """`shadow`, or the weight."""
        return "shadow" if self.mirror else weight(self.weight_percent)


@dataclass(frozen=True, slots=True)
class Accusation:
    """The signal that the judge rolled the canary back on."""

    signal: str
    record: e.SignalRecord
    evidence: e.EvidenceRecord  # of all signals, at that moment


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """One release from its request to its end, or to now."""

    number: int
    canary: str
    stable: str
    spec: RolloutSpec
    state: Release
    requested_s: float
    ended_s: float | None
    seen_s: float  # the last moment that the ledger tells of
    decisions: tuple[Decision, ...]
    notes: tuple[e.Noted, ...]
    preflight: PreflightResult | None  # None: the canary was not tried out
    drift: DriftReport | None  # the newest; None: it was not compared with stable
    steps: tuple[StepSpan, ...]
    weights: tuple[tuple[float, float, bool], ...]  # (Unix seconds, canary percent, mirrored), as read back
    signals: Mapping[str, SignalSeries]
    verdicts: tuple[tuple[float, str, float], ...]  # (Unix seconds, verdict, combined log_e)
    threshold: float | None  # combined log_e at which the judge fails the canary
    phi: Mapping[str, float]
    user_phi: float | None  # dispersion of the errors over stable's users, as last measured; None: not sticky
    last_evidence: e.EvidenceRecord | None
    last_why: str

    @property
    def outcome(self) -> str:
        """`promoted`, `rolled_back`, `aborted`, or the phase it is in."""
        return self.state.outcome or self.state.phase.value

    @property
    def end(self) -> Decision | None:
        """The decision that gave the outcome; None while there is none."""
        return next((d for d in reversed(self.decisions) if d.action == self.state.outcome), None)

    @property
    def accusation(self) -> Accusation | None:
        """None unless the judge rolled the canary back on a signal's evidence."""
        signal, end = self.state.outcome_signal, self.end
        if signal is None or end is None or end.evidence is None or end.by != "judge":
            return None
        record = end.evidence.signals.get(signal)
        return Accusation(signal, record, end.evidence) if record else None

    @property
    def first_canary_s(self) -> float | None:
        """When the first user's request could reach the canary, Unix seconds."""
        return next((at_s for at_s, percent, _ in self.weights if percent > 0), None)

    @property
    def out_of_traffic_s(self) -> float | None:
        """When the canary was at weight 0 again, read back from the gateway, Unix seconds."""
        first = self.first_canary_s
        if first is None or self.state.outcome not in ("rolled_back", "aborted"):
            return None
        return next((at_s for at_s, percent, _ in self.weights if at_s > first and percent == 0), None)

    @property
    def blind_since_s(self) -> float | None:
        """Since when the metric source gives no reading, Unix seconds; None while it does."""
        topics = [note for note in self.notes if note.topic in ("source_unreachable", "source_back")]
        return topics[-1].at_s if topics and topics[-1].topic == "source_unreachable" else None

    @property
    def canary_requests(self) -> int:
        """Users' requests that the canary answered, as far as they were judged."""
        return self._answered.total

    @property
    def canary_failures(self) -> int:
        """Of these, how many the canary failed."""
        return self._answered.bad

    @property
    def _answered(self) -> Pair:
        """Failed and all requests, before promotion and in the watch."""
        return self.users("errors") + self.users(WATCHED_ERRORS)

    @property
    def failures(self) -> SignalSeries:
        """Errors while both versions had traffic, then those of the watch."""
        compared, watched = (self.signals.get(name, SignalSeries()) for name in ("errors", WATCHED_ERRORS))
        return SignalSeries(
            at_s=compared.at_s + watched.at_s,
            log_e=compared.log_e + watched.log_e,
            threshold=compared.threshold + watched.threshold,
            stable=compared.stable + watched.stable,
            canary=compared.canary + watched.canary,
        )

    def users(self, signal: str) -> Pair:
        """The canary's counts of `signal` from users' requests; mirrored copies are not users' requests."""
        first, series = self.first_canary_s, self.signals.get(signal)
        if first is None or series is None:
            return Pair(0, 0)
        pairs = zip(series.at_s, series.canary, strict=True)
        return sum((pair for at_s, pair in pairs if at_s > first), Pair(0, 0))


def view(events: Iterable[e.Event]) -> ReleaseView:
    """Shape one release's events, oldest first.

    Raises: ValueError when they do not begin with its request.
    """
    own = list(events)
    request = own[0] if own else None
    if not isinstance(request, e.ReleaseRequested):
        raise ValueError("a release's events begin with its request")
    state = fold(own).release
    if state is None:
        raise ValueError("a release's request makes a release")
    ticks = [event for event in own if isinstance(event, e.Ticked)]
    decisions = tuple(decision for event in own if (decision := _decision(event, request.spec)))
    signals = _series(ticks)
    applied = [event for event in own if isinstance(event, e.Applied)]
    return ReleaseView(
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
        steps=_steps(own, decisions, signals.get("errors", SignalSeries())),
        weights=tuple((event.at_s, _canary_percent(event, request.tag), event.mirror) for event in applied),
        signals=signals,
        verdicts=tuple((tick.at_s, tick.evidence.verdict, tick.evidence.log_e) for tick in ticks),
        threshold=ticks[-1].evidence.threshold if ticks else None,
        phi=state.phi,
        user_phi=ticks[-1].user_phi if ticks else None,
        last_evidence=_last_evidence(ticks),
        last_why=ticks[-1].why if ticks else "",
    )


def _canary_percent(event: e.Applied, canary: str) -> float:
    """The canary's share; once promoted it is the stable of the split."""
    return 100 if event.stable == canary else event.weight_percent if event.canary == canary else 0


def _last_evidence(ticks: list[e.Ticked]) -> e.EvidenceRecord | None:
    """What the last look said, with all signals: a watch looks at one of its own, the others stay as they were."""
    if not ticks:
        return None
    last = ticks[-1].evidence
    compared = next((t.evidence for t in reversed(ticks) if WATCHED_ERRORS not in t.evidence.signals), last)
    return last.model_copy(update={"signals": compared.signals | last.signals})


def _series(ticks: list[e.Ticked]) -> dict[str, SignalSeries]:
    series: dict[str, SignalSeries] = {}
    for tick in ticks:
        for counts in tick.counts:
            evidence = tick.evidence.signals
            name = WATCHED_ERRORS if counts.signal == "errors" and WATCHED_ERRORS in evidence else counts.signal
            record = evidence.get(name)
            if record is None:
                continue
            one = series.setdefault(name, SignalSeries())
            one.at_s.append(tick.at_s)
            one.log_e.append(record.log_e)
            one.threshold.append(record.threshold)
            one.stable.append(Pair(*counts.stable))
            one.canary.append(Pair(*counts.canary))
    return series


def _steps(events: list[e.Event], decisions: tuple[Decision, ...], requests: SignalSeries) -> tuple[StepSpan, ...]:
    entered = [event for event in events if isinstance(event, e.StepEntered)]
    bounds = [d for d in decisions if d.action in ("step", "promoted", "rolled_back", "aborted")]
    spans = []
    for event, earned_by, ended_by in zip(entered, bounds, (*bounds[1:], None), strict=False):
        until_s = ended_by.at_s if ended_by else inf
        in_step = [i for i, at_s in enumerate(requests.at_s) if event.at_s < at_s <= until_s]
        spans.append(
            StepSpan(
                weight_percent=event.weight_percent,
                mirror=event.mirror,
                from_s=event.at_s,
                until_s=ended_by.at_s if ended_by else None,
                stable=sum((requests.stable[i] for i in in_step), Pair(0, 0)),
                canary=sum((requests.canary[i] for i in in_step), Pair(0, 0)),
                earned_by=earned_by,
                ended_by=ended_by,
            )
        )
    return tuple(spans)


def _decision(event: e.Event, spec: RolloutSpec) -> Decision | None:
    match event:
        case e.ReleaseRequested(tag=tag, stable=stable, by=by, retry=retry):
            title = f"{'retry' if retry else 'release'} of {tag} against {stable}"
            return Decision(event.at_s, "requested", title, "", by)
        case e.CanaryReady(took_s=took_s):
            return Decision(event.at_s, "ready", f"canary ready after {took_s:.0f} s", "", "controller")
        case e.Preflighted(result=result):
            outcome = "failed" if result.differences else "passed"
            title = f"preflight {outcome}: {result.golden_requests} golden requests"
            return Decision(event.at_s, "preflighted", title, "; ".join(result.differences), "controller")
        case e.StepEntered(step=step, weight_percent=percent, mirror=mirror, reason=reason, by=by, evidence=evidence):
            of = "" if spec.steps == "auto" else f" (step {step + 1} of {len(spec.steps)})"
            title = f"{'shadow: a copy of every request' if mirror else f'weight {weight(percent)}'}{of}"
            return Decision(event.at_s, "step", title, reason, by, evidence, percent)
        case e.Promoted(reason=reason, by=by, evidence=evidence):
            return Decision(event.at_s, "promoted", "promoted", reason, by, evidence, 100)
        case e.RolledBack(signal=signal, reason=reason, by=by, evidence=evidence):
            return Decision(event.at_s, "rolled_back", f"rolled back ({signal})", reason, by, evidence, 0)
        case e.Aborted(reason=reason, by=by):
            return Decision(event.at_s, "aborted", "aborted", reason, by, weight_percent=0)
        case e.Paused(reason=reason, by=by):
            return Decision(event.at_s, "paused", "paused", reason, by)
        case e.Resumed(by=by):
            return Decision(event.at_s, "resumed", "resumed", "", by)
        case e.Ended(outcome=outcome):
            return Decision(event.at_s, "ended", f"over: {outcome.replace('_', ' ')}", "", "controller")
        case _:
            return None
