"""A ramp by the risk budget with the bounds of an asymptotic confidence sequence instead of our judge's bounds.

Each request counts as its failure times (1 - w) on the canary and -w on stable, where w is the canary's share: for any
failure ratio the mean of this is w (1 - w) times the canary's excess. So the sum, over the sum of 1 - w for each
request of the canary, estimates the excess, with more weight where both versions have requests.
Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, arXiv:2103.06476 (the sequence, its one-sided form and the best
rho for a given time).
"""

import math

from benchmarks.judge.tool import Outcome
from rollout.judge import Pair

_LEAST_BAD = 10  # failures of both versions from which the normal approximation may roll back


class AsymptoticSequence:
    """Lower and upper bound of the canary's excess; each is wrong at any time with a chance of about alpha."""

    def __init__(self, *, alpha: float = 0.01, best_variance: float = 40.0) -> None:
        """
        Args:
            best_variance: sum of variances at which the bounds are tightest; the default is that of 30,000 requests,
                half of them canary's, of which 0.5 % fail.
        """
        self._alpha = alpha
        self._rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / best_variance
        self._sum = self._variance = self._information = 0.0
        self.bad = 0

    def observe(self, weight: float, stable: Pair, canary: Pair) -> None:
        """Take in a window with this canary share, 0 to 1."""
        self._sum += canary.bad * (1 - weight) - stable.bad * weight
        self._variance += canary.bad * (1 - weight) ** 2 + stable.bad * weight**2
        self._information += canary.total * (1 - weight)  # no bound for a canary that answers nothing
        self.bad += stable.bad + canary.bad

    @property
    def lower(self) -> float:
        """Lower and upper bound of the excess of the error ratio."""
        return (self._sum - self._margin) / self._information if self._information else -1.0

    @property
    def upper(self) -> float:
        return (self._sum + self._margin) / self._information if self._information else 1.0

    @property
    def _margin(self) -> float:
        spread = self._variance * self._rho2 + 1
        return math.sqrt(2 * spread / self._rho2 * math.log(1 + math.sqrt(spread) / (2 * self._alpha)))


class BudgetRamp:
    """Weights by the budget rule: up when even the upper bound stays within it, back when the lower one is above 0."""

    def __init__(self, *, steps: tuple[int, ...] = (1, 5, 25, 50), budget: float = 0.005, soak_s: float = 60.0) -> None:
        """
        Args:
            steps: weights, percent; after the last one the canary takes all traffic.
            budget: most harmed requests as a share of all.
            soak_s: shortest time of a step.
        """
        self._steps, self._budget, self._soak_s = steps, budget, soak_s
        self._bounds = AsymptoticSequence()
        self._step, self._since_s = 0, 0.0

    @property
    def weight_percent(self) -> int:
        return self._steps[self._step]

    def observe(self, elapsed_s: float, stable: Pair, canary: Pair) -> Outcome | None:
        self._bounds.observe(self.weight_percent / 100, stable, canary)
        if self._bounds.bad >= _LEAST_BAD and self._bounds.lower > 0:
            return "rolled_back"
        is_last = self._step == len(self._steps) - 1
        next_weight = 1.0 if is_last else self._steps[self._step + 1] / 100
        if elapsed_s - self._since_s < self._soak_s or next_weight * self._bounds.upper > self._budget:
            return None
        if is_last:
            return "promoted"
        self._step, self._since_s = self._step + 1, elapsed_s
        return None
