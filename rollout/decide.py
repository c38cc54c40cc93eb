"""What to do next: one pure function from state, facts and evidence to an action.

No clock, no network, no log. The controller gathers, calls `decide`, writes the answer down, acts.
"""

import math
from dataclasses import dataclass
from typing import assert_never

from rollout.interfaces import Health
from rollout.judge import Judgement, Pair, Verdict
from rollout.judge.limits import chance_of_as_many
from rollout.state import Phase, Release

AUTO_START_PERCENT = 1
LAST_COMPARED_PERCENT = 50  # above it too little stable traffic is left to compare with
AUTO_GROWTH = 1.05  # of the weight, for which an automatic step is worth a change
_BOTH_FAIL = "both versions fail, so it is not the canary's fault: frozen until stable is well"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen of the world in this tick."""

    now_s: float  # Unix seconds
    canary: Health
    stable: Health  # of the version to go back to
    has_crashed: bool  # the canary's process ended by itself at least once
    canary_unready_s: float  # how long the canary has not answered its readiness probe
    detail: str  # last words of a canary that is not well
    is_measured: bool  # the metric source gave a reading
    is_fresh: bool  # ... in this very beat, and it was judged
    recent_canary: Pair  # errors in the last half minute
    recent_stable: Pair
    awaits_preflight: bool = False  # the canary is to be tried out, and was not yet


@dataclass(frozen=True, slots=True)
class Hold:
    """Change nothing."""

    reason: str
    needs_person: bool = False


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
    """All traffic returns to the version before."""

    signal: str
    reason: str


@dataclass(frozen=True, slots=True)
class EndWatch:
    """The version before need not stay warm any longer."""

    reason: str


Action = Hold | EnterStep | Promote | Rollback | EndWatch


def asked_weight(release: Release) -> float | None:
    """The canary share, 0-1, that the judge is asked to allow; None at 100 %, where no step is left."""
    if release.phase is not Phase.STEPPING or release.is_last_step:
        return None
    if release.spec.steps != "auto":
        return release.weight_at(release.step + 1) / 100
    return _least_automatic(release) / 100


def decide(release: Release, facts: Facts, judgement: Judgement | None) -> Action:
    """Choose the next action. `judgement` is None where nothing is judged."""
    match release.phase:
        case Phase.STARTING:
            return _starting(release, facts)
        case Phase.STEPPING:
            return _unsafe(release, facts, judgement) or _onward(release, facts, judgement)
        case Phase.WATCHING:
            return _watching(release, facts, judgement)
        case Phase.LEAVING | Phase.ENDED:
            return Hold("decided")
    assert_never(release.phase)


def _starting(release: Release, facts: Facts) -> Action:
    waited_s = facts.now_s - release.phase_since_s
    if facts.canary is Health.DEAD or facts.has_crashed:
        return Rollback("startup", f"{release.canary} did not start: {facts.detail or 'its process ended'}")
    if facts.canary is not Health.READY and waited_s >= release.spec.startup_deadline:
        return Rollback(
            "startup", f"{release.canary} was not ready after {waited_s:.0f} s: {facts.detail or 'no word from it'}"
        )
    if release.preflight_differences:
        return Rollback(
            "preflight", f"{release.canary} failed its preflight: {'; '.join(release.preflight_differences)}"
        )
    if facts.awaits_preflight and waited_s >= release.spec.startup_deadline:
        return Rollback("preflight", f"the preflight of {release.canary} was not over after {waited_s:.0f} s")
    if release.is_paused:
        return Hold("paused by a person")
    if facts.canary is not Health.READY:
        return Hold(f"{release.canary} is starting")
    if facts.awaits_preflight:
        return Hold(f"{release.canary} is tried out before its first request")
    if release.spec.steps == "auto":
        return EnterStep(0, AUTO_START_PERCENT, mirror=False, reason=f"{release.canary} is ready")
    return EnterStep(0, release.weight_at(0), mirror=release.is_shadow_first, reason=f"{release.canary} is ready")


def _unsafe(release: Release, facts: Facts, judgement: Judgement | None) -> Action | None:
    """What must be done at once, whether or not the release is paused; None when nothing must."""
    down = _down(release, facts)
    failed = judgement is not None and judgement.verdict is Verdict.FAIL
    guarded = _is_over_guard(release, facts.recent_canary)
    if not (down or failed or guarded):
        return None
    if facts.stable is not Health.READY:
        return Hold(
            f"{release.stable} is {facts.stable.value}: there is no healthy version to go back to", needs_person=True
        )
    if down:
        return Rollback("canary_down", down)
    if _is_stable_bad(release, facts):
        return Hold(_BOTH_FAIL, needs_person=True)
    if failed and judgement is not None and judgement.on_fail == "rollback":
        return Rollback(judgement.failed_signal or "evidence", judgement.reason)
    if guarded or judgement is None:
        return Rollback("guard", _guard_reason(release, facts.recent_canary))
    return _accused(release, facts, judgement)


def _onward(release: Release, facts: Facts, judgement: Judgement | None) -> Action:
    if release.is_paused:
        return Hold("paused by a person")
    if not facts.is_measured or judgement is None:
        return Hold("no reading from the metric source: weight held, nothing decided blind")
    in_step_s = facts.now_s - release.phase_since_s
    if judgement.verdict is Verdict.PASS:
        if not _has_news(release, judgement):
            return Hold("passed on earlier steps; no canary request was counted in this one yet")
        if in_step_s < release.spec.soak:
            return Hold(f"passed; the step soaks {release.spec.soak - in_step_s:.0f} s more")
        if not facts.is_fresh:
            return Hold("passed; the next reading ends the step")  # see `pace.next_reading_s`
        if release.is_last_step:
            return Promote(judgement.reason)
        weight = _next_weight(release, judgement)
        return EnterStep(release.step + 1, weight, mirror=False, reason=judgement.reason)
    if release.measured_s < release.spec.step_deadline:
        return Hold(judgement.reason)
    if _is_stable_bad(release, facts):
        return Hold(_BOTH_FAIL, needs_person=True)
    reason = f"no proof of safety in {release.measured_s:.0f} s at this step: {judgement.reason}"
    if release.spec.on_deadline == "rollback" and facts.stable is Health.READY:
        return Rollback("deadline", reason)
    return Hold(reason, needs_person=True)


def _accused(release: Release, facts: Facts, judgement: Judgement) -> Action:
    """Proven worse in a way that a person decides about, who has as long as a step may last.

    After that it is rolled back: whom the evidence accuses and nobody defends does not keep its traffic.
    """
    failed = judgement.signals.get(judgement.failed_signal or "")
    since_s = failed.decided_at_s if failed and failed.decided_at_s else facts.now_s
    is_over = facts.now_s - since_s >= release.spec.step_deadline
    if is_over and facts.is_measured and not release.is_paused:
        return Rollback("deadline", f"{judgement.reason}; nobody decided in {release.spec.step_deadline:.0f} s")
    return Hold(f"{judgement.reason}; the plan leaves this to a person", needs_person=True)


def _has_news(release: Release, judgement: Judgement) -> bool:
    """Whether the canary was measured in this very step; a verdict does not grow old by itself."""
    seen = (signal.latest_s for signal in judgement.signals.values())
    return any(latest_s is not None and latest_s > release.phase_since_s for latest_s in seen)


def _watching(release: Release, facts: Facts, judgement: Judgement | None) -> Action:
    can_go_back = facts.stable is Health.READY
    down = _down(release, facts)
    if down and can_go_back:
        return Rollback("canary_down", down)
    if _is_over_guard(release, facts.recent_canary) and can_go_back:
        return Rollback("guard", f"after promotion {_guard_reason(release, facts.recent_canary)}")
    if judgement is not None and judgement.verdict is Verdict.FAIL and can_go_back:
        return Rollback(judgement.failed_signal or "evidence", f"after promotion {judgement.reason}")
    if facts.now_s - release.phase_since_s >= release.spec.watch:
        return EndWatch(f"{release.spec.watch:.0f} s after promotion all is well")
    return Hold("watching the promoted version")


def _down(release: Release, facts: Facts) -> str | None:
    """Why the canary counts as down, or None."""
    if facts.canary is Health.DEAD or facts.has_crashed:
        return f"the process of {release.canary} ended" + (f": {facts.detail}" if facts.detail else "")
    if facts.canary is not Health.READY and facts.canary_unready_s >= release.spec.down_after:
        return f"{release.canary} did not answer its readiness probe for {facts.canary_unready_s:.0f} s"
    return None


def _is_over_guard(release: Release, recent: Pair) -> bool:
    """Whether the version's true error ratio is over the guard: no chance effect in any look of a whole release.

    A version whose requests fail independently, at the guard's ratio or less, is over it in one of all looks with a
    probability of at most `alpha`.
    """
    spec = release.spec
    looks = spec.judge_config().horizon_windows + spec.watch / spec.window
    chance = chance_of_as_many(recent, spec.guards.error_ratio, phi=release.phi.get("errors", 1.0))
    return chance <= spec.alpha / looks


def _is_stable_bad(release: Release, facts: Facts) -> bool:
    """Whether stable is over its guard as well. No proof is asked for: a freeze harms less than a false rollback."""
    stable = facts.recent_stable
    return stable.bad > 0 and stable.bad >= release.spec.guards.error_ratio * stable.total


def _guard_reason(release: Release, recent: Pair) -> str:
    limit = release.spec.guards.error_ratio
    return f"{recent.bad} of the last {recent.total} canary requests failed; the guard allows {limit:.0%}"


def _next_weight(release: Release, judgement: Judgement) -> float:
    """The next fixed step, or the largest automatic one that the risk budget allows."""
    if release.spec.steps != "auto":
        return release.weight_at(release.step + 1)
    bounds = [signal.excess_upper for signal in judgement.signals.values() if signal.excess_upper is not None]
    worst = max(bounds, default=1.0)
    safe_percent = math.floor(10_000 * release.spec.risk_budget / max(worst, release.spec.risk_budget)) / 100
    least = _least_automatic(release)
    return max(least, min(2 * release.weight_percent, safe_percent, LAST_COMPARED_PERCENT))


def _least_automatic(release: Release) -> float:
    """The smallest automatic step up, percent: the judge has passed no less."""
    if release.weight_percent >= LAST_COMPARED_PERCENT:
        return 100
    return min(math.ceil(100 * AUTO_GROWTH * release.weight_percent) / 100, LAST_COMPARED_PERCENT)
