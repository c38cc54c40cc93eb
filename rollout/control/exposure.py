"""How many users' requests the canary has answered, and will have answered once the coming steps have soaked.

A budget in requests limits this number times the bound on the canary's excess (docs/decisions/0032).
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from rollout.judge import Ask, Window
from rollout.ledger.state import Release
from rollout.spec import RolloutSpec

_RATE_MEMORY = 0.9  # how much of the last window's traffic estimate the next one keeps


class Exposure:
    """Counts users' requests in the steps of a release. Copied requests do not count."""

    def __init__(self) -> None:
        self.requests = 0  # answered by the canary
        self._recent_requests = self._recent_s = 0.0

    @staticmethod
    def known_before(release: Release) -> tuple[Ask, ...]:
        """The steps of a plan with a budget in requests, estimated from stable's earlier traffic; none without one."""
        if release.spec.risk_budget.requests is None or not release.history_s:
            return ()
        before = Exposure()
        before._recent_requests, before._recent_s = float(release.stable_errors.total), release.history_s
        weights = [release.weight_at(step) / 100 for step in range(1, len(release.spec.steps))]
        return before.of_steps(release.spec, weights)

    @property
    def per_s(self) -> float:
        """Users' requests a second to both versions, over the recent windows."""
        return self._recent_requests / self._recent_s if self._recent_s else 0.0

    def observe(self, windows: Iterable[Window], *, mirror: bool) -> None:
        """Add windows of any signals; `mirror`: the canary's requests in them are copies."""
        for window in windows:
            if window.signal == "errors":
                of_canary = 0 if mirror else window.canary.total
                self.requests += of_canary
                self._recent_requests = _RATE_MEMORY * self._recent_requests + window.stable.total + of_canary
                self._recent_s = _RATE_MEMORY * self._recent_s + window.window_s

    def after(self, spec: RolloutSpec, weights: Iterable[float]) -> float:
        """Users' requests that the canary will have answered once steps of these `weights`, 0-1, have soaked."""
        step_s = max(spec.soak, spec.window)
        return self.requests + sum(weights) * self.per_s * step_s

    def of_steps(self, spec: RolloutSpec, weights: Sequence[float]) -> tuple[Ask, ...]:
        """The coming steps, each with the requests up to its end."""
        return tuple(
            Ask(last, self.after(spec, [sum_of])) for last, sum_of in zip(weights, accumulate(weights), strict=True)
        )
