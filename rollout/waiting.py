"""What a running release waits for, and for about how much longer. Pure.

Called by `explain.py` and `status.py`. An estimate here decides nothing.
"""

from dataclasses import dataclass, replace
from math import inf, isinf

from rollout.events import EvidenceRecord
from rollout.numerals import about, span
from rollout.state import Phase
from rollout.view import ReleaseView, StepSpan


@dataclass(frozen=True, slots=True)
class Wait:
    """What must come before the release goes on."""

    text: str
    more_requests: int | None = None  # canary requests; None: not a matter of requests, or none would suffice
    eta_s: float | None = None  # at the present rate of requests
    deadline_s: float | None = None  # measured seconds left in this step


def waiting(release: ReleaseView, now_s: float) -> Wait | None:
    """What `release` waits for; None once it is over."""
    state, spec = release.state, release.spec
    in_phase_s = now_s - state.phase_since_s
    match state.phase:
        case Phase.STARTING:
            return Wait(f"its first ready answer, {span(in_phase_s)} of at most {span(spec.startup_deadline)}")
        case Phase.STEPPING:
            return _in_step(release)
        case Phase.WATCHING:
            left_s = max(0.0, spec.watch - in_phase_s)
            return Wait(f"the end of the watch; until then {release.stable} stays warm", eta_s=left_s)
        case Phase.LEAVING:
            loser = release.stable if release.outcome == "promoted" else release.canary
            return Wait(f"{loser} to answer its last requests and stop")
        case Phase.ENDED:
            return None


def canary_rate(step: StepSpan, seen_s: float) -> float | None:
    """Canary requests per second in `step`, mirrored ones included; None before the first."""
    lasted_s = (step.until_s or seen_s) - step.from_s
    return step.canary.total / lasted_s if lasted_s > 0 and step.canary.total else None


def _in_step(release: ReleaseView) -> Wait:
    step = release.steps[-1]
    deadline_s = max(0.0, release.spec.step_deadline - release.state.measured_s)
    if release.state.is_paused:
        return Wait("a person: it is paused (`kanaria resume`)")
    if release.blind_since_s is not None:
        return Wait("the metric source, which does not answer; nothing is decided blind", deadline_s=deadline_s)
    judged_s = release.verdicts[-1][0] if release.verdicts else -inf
    if release.last_evidence is None or judged_s <= step.from_s:
        return Wait("the first counts of this step", deadline_s=deadline_s)
    evidence, why = release.last_evidence, release.last_why
    if evidence.verdict == "pass":
        left_s = max(0.0, release.spec.soak - (release.seen_s - step.from_s))
        return Wait(f"the end of the step's soak, {span(left_s)}", eta_s=left_s)
    if evidence.verdict == "fail":
        return Wait(f"a person: {why}")
    wait = _for_proof(evidence, why, step, judged_s=judged_s, deadline_s=deadline_s)
    return wait if deadline_s else replace(wait, text=f"a person, or for {wait.text}", deadline_s=None)


def _for_proof(evidence: EvidenceRecord, why: str, step: StepSpan, *, judged_s: float, deadline_s: float) -> Wait:
    """The requests that are missing, as far as anybody can tell."""
    more = max((signal.more_requests_needed or 0.0 for signal in evidence.signals.values()), default=0.0)
    if evidence.verdict == "no_data" or not more:
        return Wait(f"evidence: {why}", deadline_s=deadline_s)
    if isinf(more):
        return Wait(f"what cannot come: {why}", deadline_s=deadline_s)
    rate = canary_rate(step, judged_s)
    eta_s = more / rate if rate else None
    pace = f", {span(eta_s)} at the present rate" if eta_s is not None else ""
    copies = "copied requests" if step.mirror else "requests to the canary"
    return Wait(f"about {about(more)} more {copies}{pace}", round(more), eta_s, deadline_s)
