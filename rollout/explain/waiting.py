"""What a running release waits for, and about how much longer. No decision depends on these estimates."""

from dataclasses import dataclass, replace
from math import inf, isinf

from rollout.control.next_weight import lacks_improvement
from rollout.control.shadow import ahead
from rollout.explain.timeline import StepSpan, Timeline
from rollout.format import about, span, weight
from rollout.judge import Judgement, Verdict
from rollout.ledger.state import Phase

_NONE_ARRIVE = "requests: none arrive; `kanaria loadtest demo` sends some"
_SILENT_WINDOWS = 2  # after this many windows without a request, earlier rates no longer hold


@dataclass(frozen=True, slots=True)
class Wait:
    """What must happen before the release goes on."""

    text: str
    more_requests: int | None = None  # canary requests; None: requests are not missing, or no number is enough
    eta_s: float | None = None  # at the rate of requests in this step; None: not known, or no requests arrive
    deadline_s: float | None = None  # measured seconds left in this step


def waiting(release: Timeline, now_s: float, *, refused: str = "") -> Wait | None:
    """What `release` waits for; None: it has ended.

    Args:
        release: the release.
        now_s: Unix seconds.
        refused: requests that the gateway refused since a version last got one, in words; empty: use the ledger's note.
    """
    state, spec = release.state, release.spec
    in_phase_s = now_s - state.phase_since_s
    match state.phase:
        case Phase.STARTING | Phase.STEPPING if state.is_paused:
            return Wait("a person: it is paused (`kanaria resume`)")
        case Phase.STARTING:
            return Wait(f"its first ready answer, {span(in_phase_s)} of at most {span(spec.startup_deadline)}")
        case Phase.STEPPING:
            return _in_step(release, now_s, refused or release.refused)
        case Phase.WATCHING:
            left_s = max(0.0, spec.watch - state.seen_s)
            seen = f"{span(state.seen_s)} of {span(spec.watch)} were measured"
            held = state.held_back_percent
            keeps = f"keeps {weight(held)} of the traffic to compare with" if held else "stays warm"
            return Wait(f"the end of the watch; {seen}, and {release.stable} {keeps}", eta_s=left_s)
        case Phase.LEAVING:
            return Wait(f"{release.canary} to answer its last requests and stop")
        case Phase.ENDED:
            return None


def canary_rate(step: StepSpan, seen_s: float) -> float | None:
    """Canary requests per second in `step`, mirrored ones included; None before the first."""
    lasted_s = (step.until_s or seen_s) - step.from_s - step.warmup_s
    return step.canary.total / lasted_s if lasted_s > 0 and step.canary.total else None


def _in_step(release: Timeline, now_s: float, refused: str) -> Wait:
    step = release.steps[-1]
    deadline_s = max(0.0, release.spec.step_deadline - release.state.measured_s)
    if release.blind_since_s is not None:
        return Wait("the metric source, which does not answer; nothing is decided without data", deadline_s=deadline_s)
    is_out = not step.weight_percent and not step.mirror  # out of traffic until requests are counted again
    is_silent = now_s - step.from_s > _SILENT_WINDOWS * release.spec.window and not release.has_requests
    if is_out or (release.judgements and is_silent):
        said = f"requests that reach a version: {refused}" if refused else _NONE_ARRIVE
        passes = is_out or deadline_s > 0  # otherwise a person was asked
        return Wait(said if passes else f"a person, or for {said}", deadline_s=None if is_out else deadline_s or None)
    if release.state.is_warming_up and deadline_s:
        warmed_s, warmup_s = release.state.warmed_s, release.spec.warmup_s
        text = f"the end of its warm-up, {span(warmed_s)} of {span(warmup_s)}: nothing is judged yet"
        return Wait(text, eta_s=warmup_s - warmed_s)
    judged_s = release.judgements[-1][0] if release.judgements else -inf
    if release.last_evidence is None or judged_s <= step.from_s:
        return Wait("the first counts of this step", deadline_s=deadline_s)
    evidence = release.last_evidence
    left_s = max(0.0, release.state.soak_s - release.state.seen_s)
    if wait := _in_shadow(release, step, evidence, now_s, left_s):
        return _beside(wait, refused)
    if evidence.verdict is Verdict.PASS and not left_s and lacks_improvement(release.state, evidence):
        text = "labels that prove it better, which the plan requires"
        return Wait(text if deadline_s else f"a person, or for {text}", deadline_s=deadline_s or None)
    if evidence.verdict is Verdict.PASS:
        return Wait(f"the end of the step's soak, {span(left_s)}", eta_s=left_s)
    if evidence.verdict is Verdict.FAIL:
        return Wait(f"a person: {release.last_why}")
    wait = _for_labels(release, evidence, now_s=now_s, deadline_s=deadline_s) or _for_proof(
        release, step, evidence, now_s=now_s, deadline_s=deadline_s
    )
    wait = _beside(wait, refused)
    return wait if deadline_s else replace(wait, text=f"a person, or for {wait.text}", deadline_s=None)


def _beside(wait: Wait, refused: str) -> Wait:
    """`wait` with the requests that were refused meanwhile."""
    return replace(wait, text=f"{wait.text}; {refused}") if refused else wait


def _in_shadow(release: Timeline, step: StepSpan, evidence: Judgement, now_s: float, soaks_s: float) -> Wait | None:
    """A wait for the copied requests that prove the coming steps; None where something else is missing."""
    to_come = ahead(release.state, evidence)
    if to_come is None or not to_come.is_only_unproven or to_come.eta_s <= soaks_s:
        return None
    more, silent_s = round(to_come.more), now_s - max(step.from_s, _last_request_s(release))
    if silent_s <= _SILENT_WINDOWS * release.spec.window:
        return Wait(to_come.reason, more, to_come.eta_s)
    text = f"{to_come.reason}; none came for {span(silent_s)}"
    return Wait(text if silent_s < release.spec.step_deadline else f"a person, or for {text}", more)


def _for_labels(release: Timeline, evidence: Judgement, *, now_s: float, deadline_s: float) -> Wait | None:
    """A wait for the first labels that may count; None where something else is missing, or labels could have come."""
    judged = evidence.signals.get("wrong_label")
    if evidence.verdict is not Verdict.NO_DATA or release.labels is None or judged is None or judged.canary.total:
        return None
    left_s = release.steps[0].from_s + release.labels.after_s - now_s
    if left_s <= 0:
        return None
    text = f"labels, which count once their answer is {span(release.labels.after_s)} old: the first in {span(left_s)}"
    return Wait(text, eta_s=left_s, deadline_s=deadline_s)


def _for_proof(release: Timeline, step: StepSpan, evidence: Judgement, *, now_s: float, deadline_s: float) -> Wait:
    """A wait for the missing requests, as far as their number can be estimated."""
    more = max((signal.more_requests_needed or 0.0 for signal in evidence.signals.values()), default=0.0)
    if evidence.verdict is Verdict.NO_DATA or not more:
        return Wait(f"evidence: {release.last_why}", deadline_s=deadline_s)
    if isinf(more):
        return Wait(f"proof that no number of requests can give: {release.last_why}", deadline_s=deadline_s)
    text = f"about {about(more)} more {'copied requests' if step.mirror else 'requests to the canary'}"
    latest_s = max(step.from_s, _last_request_s(release))
    if now_s - latest_s > _SILENT_WINDOWS * release.spec.window:
        return Wait(f"{text}; none came for {span(now_s - latest_s)}", round(more), deadline_s=deadline_s)
    rate = canary_rate(step, latest_s)
    eta_s = more / rate if rate else None
    duration = f", {span(eta_s)} at the rate of this step" if eta_s is not None else ""
    return Wait(f"{text}{duration}", round(more), eta_s, deadline_s)


def _last_request_s(release: Timeline) -> float:
    """When a request of the canary was last counted, Unix seconds; -inf before the first."""
    ends = (tick.window.end_s for tick in reversed(release.failures) if tick.window.canary.total)
    return next(ends, -inf)
