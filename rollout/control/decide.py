"""Decides what to do next: one function from state, facts and evidence to an action. No clock, no network, no log.

A wait for evidence lasts in measured time, which the ledger keeps (`Release.seen_s` and its neighbours). A wait for a
process lasts in the time that this controller saw pass (`Facts`). No wall clock is read, so none can end a wait.
"""

import math
from dataclasses import dataclass
from typing import assert_never

from rollout.control import guard, shadow
from rollout.control.next_weight import (
    LAST_COMPARED_PERCENT,
    lacks_improvement,
    least_automatic,
)
from rollout.fleet import MOST_RESTARTS, Health
from rollout.format import count
from rollout.judge import Judgement, Pair, Verdict, words
from rollout.ledger.state import Phase, Release
from rollout.spec import AUTO_START_PERCENT

_BOTH_FAIL = "both versions fail, so it is not the canary's fault: frozen until stable is healthy"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was observed in this beat."""

    in_phase_s: float  # how long this controller has seen the release in its present step or phase, seconds
    unseen_s: float  # how long of that no request of the canary was counted, seconds
    canary: Health
    stable: Health  # of the version to go back to
    has_crashed: bool  # the canary's process ended by itself at least once
    canary_unready_s: float  # how long the canary has not answered its readiness probe, seconds
    detail: str  # how an unhealthy or crashed canary's process ended, or its last output
    is_measured: bool  # the metric source gives readings
    is_fresh: bool  # there was a reading in this beat, and it was judged
    recent_canary: Pair  # errors in the guard's window
    recent_stable: Pair
    restarts: int = 0  # workers of the canary that ended by themselves
    preparing: str = ""  # what is being done to create the canary's environment
    awaits_preflight: bool = False  # a preflight is wanted and has no result yet


@dataclass(frozen=True, slots=True)
class Hold:
    """Change nothing."""

    reason: str
    needs_person: bool = False
    left_s: float | None = None  # measured seconds until the rollback; None: nothing happens by itself


@dataclass(frozen=True, slots=True)
class EnterStep:
    """Give the canary this share of the traffic."""

    step: int
    weight_percent: float
    mirror: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Promote:
    """The canary becomes stable."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rollback:
    """All traffic returns to the previous version."""

    signal: str
    reason: str


@dataclass(frozen=True, slots=True)
class EndWatch:
    """End the watch: the previous version need not stay warm any longer."""

    reason: str


Action = Hold | EnterStep | Promote | Rollback | EndWatch


def decide(release: Release, facts: Facts, judgement: Judgement | None) -> Action:
    """Choose the next action. `judgement` is None where nothing is judged."""
    match release.phase:
        case Phase.STARTING:
            return _starting(release, facts)
        case Phase.STEPPING:
            return (
                _unsafe(release, facts, judgement)
                or _beyond_requests(release, facts, judgement)
                or _without_evidence(release, facts)
                or _onward(release, facts, judgement)
            )
        case Phase.WATCHING:
            return _watching(release, facts, judgement)
        case Phase.LEAVING | Phase.ENDED:
            return Hold("decided")
    assert_never(release.phase)


def _starting(release: Release, facts: Facts) -> Action:
    waited_s = facts.in_phase_s
    if facts.canary is Health.DEAD or facts.has_crashed:
        return Rollback("startup", f"{release.canary} did not start: {facts.detail or 'its process ended'}")
    if facts.restarts > MOST_RESTARTS:
        return Rollback("startup", _restarted(release, facts))
    if facts.canary is not Health.READY and waited_s >= release.spec.startup_deadline:
        return Rollback(
            "startup", f"{release.canary} was not ready after {waited_s:.0f} s: {facts.detail or 'it gave no output'}"
        )
    if release.preflight_differences:
        return Rollback(
            "preflight", f"{release.canary} failed its preflight: {'; '.join(release.preflight_differences)}"
        )
    if facts.awaits_preflight and waited_s >= release.spec.preflight_deadline_s:
        return Rollback("preflight", f"the preflight of {release.canary} had not ended after {waited_s:.0f} s")
    if release.is_paused:
        return Hold("paused by a person")
    if facts.canary is not Health.READY:
        return Hold(f"{release.canary} is starting" + (f": {facts.preparing}" if facts.preparing else ""))
    if facts.awaits_preflight:
        return Hold(f"the preflight of {release.canary} is running")
    if release.restore:
        return Promote(release.restore.reason or "it is ready, and was promoted before")
    return _first_step(release, f"{release.canary} is ready")


def _first_step(release: Release, reason: str) -> EnterStep:
    if release.spec.steps == "auto":
        return EnterStep(0, AUTO_START_PERCENT, mirror=False, reason=reason)
    return EnterStep(0, release.weight_at(0), mirror=release.spec.has_shadow, reason=reason)


def _unsafe(release: Release, facts: Facts, judgement: Judgement | None) -> Action | None:
    """The action that is needed at once, whether or not the release is paused; None: nothing is."""
    down = _down(release, facts)
    failed = judgement is not None and judgement.verdict is Verdict.FAIL
    guarded = guard.is_over(release, facts.recent_canary, facts.recent_stable)
    if not (down or failed or guarded):
        return None
    if facts.stable is not Health.READY:
        return Hold(
            f"{release.stable} is {facts.stable.value}: there is no healthy version to go back to", needs_person=True
        )
    if down:
        return Rollback("canary_down", down)
    if guard.is_stable_bad(release, facts.recent_stable):
        return Hold(_BOTH_FAIL, needs_person=True)
    if failed and judgement is not None and judgement.on_fail == "rollback":
        may_wait = release.mirror and judgement.may_be_better and not guarded
        if may_wait and release.failed_s < release.spec.step_deadline:
            return Hold(f"{judgement.reason}; it stays in the shadow for labels, which may prove it better")
        return Rollback(judgement.failed_signal or "evidence", judgement.reason)
    if guarded and guard.is_shared(release, facts.recent_stable):
        return Hold(_BOTH_FAIL, needs_person=True)
    if guarded or judgement is None:
        return Rollback("guard", guard.reason(release, facts.recent_canary))
    return _left_to_person(release, facts, judgement)


def _without_evidence(release: Release, facts: Facts) -> Action | None:
    """Return to the weight at which the canary last passed, if there is no longer any evidence about it.

    Without readings this happens even while paused, because it makes traffic safer. Without requests it does not happen
    while paused, and only once from each weight: nobody is harmed then, and where requests are rare the weight would
    rise and fall with each of them.
    """
    back, limit_s = release.previous, evidence_deadline_s(release)
    if release.weight_percent == 0 or back is None or facts.unseen_s < limit_s:
        return None
    if facts.is_measured and (release.is_paused or release.weight_percent <= release.returned_from_percent):
        return None
    what = "no request of the canary was counted" if facts.is_measured else "there was no reading"
    reason = f"{what} for {facts.unseen_s:.0f} s: back to the last weight at which it passed"
    if facts.stable is not Health.READY:
        return Hold(f"{reason}, once {release.stable} is ready to take the traffic", needs_person=True)
    return EnterStep(back.step, back.percent, mirror=back.mirror, reason=reason)


def _beyond_requests(release: Release, facts: Facts, judgement: Judgement | None) -> Action | None:
    """Return to the shadow before more users' requests could be harmed than the plan allows, even while paused.

    If proof is still missing once the step has soaked, waiting for it would cost users' requests as well. In the shadow
    step copies provide the proof, and then the canary returns to the steps.
    """
    allowed = release.spec.risk_budget.requests
    if allowed is None or judgement is None or release.weight_percent == 0:
        return None
    errors = judgement.signals.get("errors")
    coming = errors.canary_per_s * max(release.spec.window, facts.unseen_s) if errors else 0.0
    harmed = judgement.harmed_upper(coming)
    if harmed is not None and harmed > allowed:
        risk = f"after the next window more users' requests may be harmed than the plan's {count(allowed)}"
    elif release.has_soaked and judgement.is_unproven and not release.is_paused:
        risk = "more proof at this step would cost users' requests"
    else:
        return None
    reason = f"{risk}: back to the shadow, where copied requests provide the proof"
    if facts.stable is not Health.READY:
        return Hold(f"{reason}, once {release.stable} is ready to take the traffic", needs_person=True)
    return EnterStep(0, 0, mirror=True, reason=reason)


def evidence_deadline_s(release: Release) -> float:
    """For how long the canary keeps its weight without evidence, seconds; at least two windows."""
    return max(release.spec.evidence_deadline, 2 * release.spec.window)


def _onward(release: Release, facts: Facts, judgement: Judgement | None) -> Action:
    if release.is_paused:
        return Hold("paused by a person")
    if not facts.is_measured or judgement is None:
        return Hold("no reading from the metric source: the weight is held until there is data")
    if release.step < 0:
        if facts.is_fresh and facts.recent_stable.total and facts.canary is Health.READY:
            return _first_step(release, "requests are counted again")
        return Hold("without traffic until requests are counted again")
    ahead = shadow.ahead(release, judgement)
    is_unproven = ahead is not None and ahead.is_only_unproven
    if ahead and is_unproven and facts.unseen_s < release.spec.step_deadline:
        return Hold(f"waits for {ahead.reason}")  # there is no deadline while requests come
    is_only_safe = judgement.verdict is Verdict.PASS and lacks_improvement(release, judgement)
    if judgement.verdict is Verdict.PASS and not is_unproven and not is_only_safe:
        if not release.seen_s:
            return Hold("passed on earlier steps; no canary request was counted in this one yet")
        if not release.has_soaked:
            return Hold(f"passed; the step soaks {release.soak_s - release.seen_s:.0f} s more")
        if not facts.is_fresh:
            return Hold("passed; the next reading ends the step")  # see `timing.next_reading_s`
        if facts.canary is not Health.READY:
            return Hold(f"passed, but {release.canary} is {facts.canary.value}")
        if release.is_last_step:
            return Promote(judgement.reason)
        if ahead:
            return _after_shadow(release, judgement, ahead)
        weight = _next_weight(release, judgement)
        return EnterStep(release.step + 1, weight, mirror=False, reason=judgement.reason)
    lacking = f"{ahead.reason}; none came for {facts.unseen_s:.0f} s" if ahead and is_unproven else judgement.reason
    if is_only_safe:
        lacking = "safe, but no labels prove it better, which the plan requires"
    if release.measured_s < release.spec.step_deadline:
        return Hold(_warming_up(release) if release.is_warming_up else lacking)
    if guard.is_stable_bad(release, facts.recent_stable):
        return Hold(_BOTH_FAIL, needs_person=True)
    what = "improvement" if is_only_safe else "safety"
    reason = f"no proof of {what} in {release.measured_s:.0f} s at this step: {lacking}"
    if release.spec.on_deadline == "rollback" and facts.stable is Health.READY:
        return Rollback("deadline", reason)
    return Hold(reason, needs_person=True)


def _after_shadow(release: Release, judgement: Judgement, ahead: shadow.Ahead) -> EnterStep:
    """Enter the first step that is large enough for the traffic; it is proven like any next step."""
    weight, reason = release.weight_at(ahead.step), judgement.reason
    if smaller := [release.weight_at(left_out) for left_out in range(release.step + 1, ahead.step)]:
        share = weight / 100
        harmed = judgement.harmed_upper(share * ahead.per_s * release.spec.soak)
        proof = words.passed(judgement.excess_upper, share, release.judge_config().alpha_pass, harmed=harmed)
        reason = f"{proof}; {shadow.left_out(smaller)}"
    return EnterStep(ahead.step, weight, mirror=False, reason=reason)


def _warming_up(release: Release) -> str:
    return f"warming up, {release.warmed_s:.0f} s of {release.spec.warmup_s:.0f} s: nothing is judged yet"


def _left_to_person(release: Release, facts: Facts, judgement: Judgement) -> Action:
    """Hold for a person: a signal that the plan leaves to a person proves harm, or callers disagree about the labels.

    The person has as long as a step may last. After that the canary is rolled back: it does not keep its traffic just
    because nobody decides.
    """
    is_over = release.failed_s >= release.spec.step_deadline
    if is_over and facts.is_measured and not release.is_paused and facts.stable is Health.READY:
        return Rollback("deadline", f"{judgement.reason}; nobody decided in {release.spec.step_deadline:.0f} s")
    left_s = None if release.is_paused else max(0.0, release.spec.step_deadline - release.failed_s)
    who = "a person must look" if judgement.without else "the plan leaves this to a person"
    return Hold(f"{judgement.reason}; {who}", needs_person=True, left_s=left_s)


def _watching(release: Release, facts: Facts, judgement: Judgement | None) -> Action:
    action = _in_watch(release, facts, judgement)
    if isinstance(action, Rollback) and release.keeps_out_stable:
        known_bad = f"{release.stable} is in quarantine, so a person must decide"
        return Hold(f"{action.reason}; but {known_bad}: `kanaria rollback` returns to it", needs_person=True)
    return action


def _in_watch(release: Release, facts: Facts, judgement: Judgement | None) -> Action:
    if harm := _harm_in_watch(release, facts, judgement):
        if facts.stable is Health.READY:
            return harm
        return Hold(
            f"{harm.reason}; {release.stable} is {facts.stable.value}: there is no healthy version to go back to",
            needs_person=True,
        )
    if judgement is not None and judgement.verdict is Verdict.FAIL:
        return _left_to_person(release, facts, judgement)
    if guard.is_over(release, facts.recent_canary, facts.recent_stable):
        return Hold(_BOTH_FAIL, needs_person=True)
    if not release.was_watched:
        return _still_watching(release, facts)
    if not (facts.is_measured and facts.is_fresh and facts.unseen_s < release.spec.window):
        return Hold("watched for long enough; the next counted requests end the watch")
    if facts.canary is not Health.READY:
        return Hold(f"watched for long enough, but {release.canary} is {facts.canary.value}")
    return EndWatch(f"no harm in {release.spec.watch:.0f} measured seconds after promotion")


def _harm_in_watch(release: Release, facts: Facts, judgement: Judgement | None) -> Rollback | None:
    if down := _down(release, facts):
        return Rollback("canary_down", down)
    both_fail = guard.is_shared(release, facts.recent_stable)  # false where stable has no traffic
    if guard.is_over(release, facts.recent_canary, facts.recent_stable) and not both_fail:
        return Rollback("guard", f"after promotion {guard.reason(release, facts.recent_canary)}")
    if judgement is not None and judgement.verdict is Verdict.FAIL and judgement.on_fail == "rollback":
        return Rollback(judgement.failed_signal or "evidence", f"after promotion {judgement.reason}")
    return None


def _still_watching(release: Release, facts: Facts) -> Hold:
    """Keep the old version warm until enough was measured; ask a person if most of the time was not measured."""
    if facts.in_phase_s < release.spec.watch:
        return Hold("watching the promoted version")
    measured = f"only {release.seen_s:.0f} s of {release.spec.watch:.0f} s were measured"
    why = "no request of it is counted" if facts.is_measured else "there is no reading"
    is_unseen = facts.unseen_s >= evidence_deadline_s(release)
    return Hold(
        f"the watch is not over: {measured}" + (f", and {why}" if is_unseen else ""),
        needs_person=release.seen_s < facts.in_phase_s / 2,
    )


def _down(release: Release, facts: Facts) -> str | None:
    """Why the canary counts as down, or None."""
    if facts.canary is Health.DEAD or facts.has_crashed:
        return f"the process of {release.canary} ended" + (f": {facts.detail}" if facts.detail else "")
    if facts.restarts > MOST_RESTARTS:
        return _restarted(release, facts)
    is_loading = facts.canary is Health.STARTING  # its machine was restarted, which is not the canary's fault
    limit_s = release.spec.startup_deadline if is_loading else release.spec.down_after
    if facts.canary is not Health.READY and facts.canary_unready_s >= limit_s:
        return f"{release.canary} did not answer its readiness probe for {facts.canary_unready_s:.0f} s"
    return None


def _restarted(release: Release, facts: Facts) -> str:
    return f"{facts.restarts} workers of {release.canary} ended by themselves" + (
        f": {facts.detail}" if facts.detail else ""
    )


def _next_weight(release: Release, judgement: Judgement) -> float:
    """The next fixed step, or the largest automatic one that the risk budget allows."""
    if release.spec.steps != "auto":
        return release.weight_at(release.step + 1)
    worst = judgement.excess_upper
    safe_percent = (
        math.floor(10_000 * release.spec.risk_budget.share / max(worst, release.spec.risk_budget.share)) / 100
    )
    least = least_automatic(release)
    return max(least, min(2 * release.weight_percent, safe_percent, LAST_COMPARED_PERCENT))
