"""How long the canary stays in the shadow step, and which step it enters after that.

In the shadow every request is evidence; at a step only the canary's share of the requests is. So the shadow provides
missing proof about twice as fast as any step could (docs/decisions/0031-long-shadow-with-little-traffic.md), and at no
user's expense. The canary leaves the shadow once no later step would last longer than its soak because proof is
missing. It then enters the first step at which a window contains a canary request: at a smaller step it would soak in
empty windows.

The forecasts decide how long the shadow lasts, not what is safe: a step is entered only when it is proven.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rollout.format import about, about_span, weight
from rollout.judge import Judgement, Verdict
from rollout.ledger.state import Phase, Release

_LEAST_REQUESTS = 1.0  # of the canary in a window of the first step


@dataclass(frozen=True, slots=True)
class Ahead:
    """The forecast for a canary in the shadow step, as far as steps can be proven."""

    step: int  # the step to enter after the shadow
    proven_percent: float  # the largest weight that can be proven at this base rate
    more: float  # copied requests until the canary leaves the shadow
    is_only_unproven: bool  # only these requests are missing: there are data, and the canary is not suspicious
    per_s: float  # copied requests a second, over the recent windows
    by_steps_s: float  # how long the plan's steps would take from now, seconds

    @property
    def eta_s(self) -> float:
        """How long the shadow still needs, seconds; inf while no request arrives."""
        return self.more / self.per_s if self.per_s else math.inf

    @property
    def reason(self) -> str:
        """Why the canary stays in the shadow, in words that follow "waits for"."""
        needed = f"about {about(self.more)} more copied requests to prove in the shadow that"
        safe = f"{needed} {weight(self.proven_percent)} is safe"
        if not self.per_s:
            return safe
        return f"{safe}, {about_span(self.eta_s)}; the steps would take {about_span(self.by_steps_s)} for that"


def later_weights(release: Release) -> tuple[float, ...]:
    """The canary's share at each step after the shadow, 0-1; empty where it is not in the shadow."""
    if release.phase is not Phase.STEPPING or not release.mirror or release.spec.steps == "auto":
        return ()
    return tuple(release.weight_at(step) / 100 for step in range(release.step + 1, len(release.spec.steps)))


def ahead(release: Release, judgement: Judgement) -> Ahead | None:
    """The forecast for `release`; None where it is not in the shadow, or no step can be proven."""
    weights, needed = later_weights(release), judgement.later_needed or ()
    errors = judgement.signals.get("errors")
    if len(weights) != len(needed) or errors is None:
        return None
    provable = [(share, more) for share, more in zip(weights, needed, strict=True) if math.isfinite(more)]
    if not provable:
        return None
    per_s = errors.canary_per_s
    first = _first(release, [share for share, _ in provable], per_s)
    # With a budget in requests, time at a step uses up the budget for the next one: get all proof in the shadow.
    soak_s = release.spec.soak if release.spec.risk_budget.requests is None else 0.0
    missing = earned = 0.0
    for share, more in provable[first:]:
        missing = max(missing, more - earned)
        earned += share * per_s * soak_s
    return Ahead(
        step=release.step + 1 + first,
        proven_percent=100 * provable[-1][0],
        more=missing,
        is_only_unproven=missing > 0 and _is_only_unproven(judgement.verdict, provable[0][1]),
        per_s=per_s,
        by_steps_s=_by_steps_s(provable, per_s, release.spec.soak),
    )


def _is_only_unproven(verdict: Verdict, more_for_next: float) -> bool:
    return verdict is Verdict.PASS or (verdict is Verdict.INCONCLUSIVE and more_for_next > 0)


def left_out(weights: Sequence[float]) -> str:
    """Says that steps of these weights, percent, are left out, and why."""
    *others, last = (weight(percent) for percent in weights)
    listed = f"{', '.join(others)} and {last}" if others else last
    return f"{listed} left out: too few requests for a window at that weight"


def _first(release: Release, shares: list[float], per_s: float) -> int:
    """Index of the first step with enough requests, else of the last step at which canary and stable are compared."""
    compared = [share for share in shares if share < 1] or shares
    window_s = release.spec.window
    return next(
        (step for step, share in enumerate(compared) if share * per_s * window_s >= _LEAST_REQUESTS), len(compared) - 1
    )


def _by_steps_s(provable: list[tuple[float, float]], per_s: float, soak_s: float) -> float:
    """How long the steps would take, seconds, each until it has soaked and the next one is proven."""
    if not per_s:
        return math.inf
    lasts_s = provable[0][1] / per_s
    earned = provable[0][1]
    for (share, _), (_, more) in zip(provable, [*provable[1:], (1.0, 0.0)], strict=True):
        step_s = max(soak_s, (more - earned) / (share * per_s))
        lasts_s += step_s
        earned += share * per_s * step_s
    return lasts_s
