"""Two tests of counts that teams write themselves: a mixture SPRT, and a z-test that is repeated at every look."""

import math

import numpy as np

from rollout.judge import Pair
from rollout.judge.logarithms import log_sum

_LEAST_BAD = 5  # failures of the canary from which the normal approximation is used


class MixtureSprt:
    """Which version had a given failure? Without a difference, the canary with a chance equal to its weight.

    For any arrivals and any failure ratio, the likelihood ratio of a rate ratio r is a martingale; so is its
    mean over r, and Ville's inequality bounds the chance that it ever reaches 1 / alpha.
    Sources: Lindon & Malek 2022, arXiv:2011.03567, on Poisson processes of any intensity; Johari, Pekelis & Walsh,
    arXiv:1512.04922, on the mixture.
    """

    def __init__(self, *, alpha: float = 0.01, largest_ratio: float = 100.0, ratios: int = 40) -> None:
        """
        Args:
            largest_ratio: the rate ratios lie evenly on a logarithmic scale from 1 to it, and count the same.
        """
        self._enough = -math.log(alpha)
        self._ratios = np.geomspace(1.0, largest_ratio, ratios + 1)[1:]
        self._log_e = np.zeros(ratios)

    def observe(self, elapsed_s: float, weight: float, stable: Pair, canary: Pair) -> bool:  # noqa: ARG002 - as in Test
        failures = stable.bad + canary.bad
        if failures:
            self._log_e += canary.bad * np.log(self._ratios) - failures * np.log1p(weight * (self._ratios - 1))
        return self.log_e >= self._enough

    @property
    def log_e(self) -> float:
        """Natural log of the mean likelihood ratio."""
        return log_sum(self._log_e.tolist()) - math.log(len(self._log_e))


class PeekedZTest:
    """A one-sided z-test of two error ratios on all requests of the step so far, repeated at every look.

    Each look has a false alarm with a chance of about alpha, so all looks together have more of them.
    Source: Johari, Koomen, Pekelis & Walsh 2017, "Peeking at A/B tests" (KDD), on the practice and what it costs.
    """

    def __init__(self, *, alpha: float = 0.01, look_s: float = 60.0) -> None:
        self._alpha, self._look_s = alpha, look_s
        self._next_s, self._weight = look_s, 0.0
        self._stable = self._canary = Pair(0, 0)

    def observe(self, elapsed_s: float, weight: float, stable: Pair, canary: Pair) -> bool:
        if weight != self._weight:  # pooled over weights, a drift would look like a difference
            self._weight, self._stable, self._canary = weight, Pair(0, 0), Pair(0, 0)
        self._stable += stable
        self._canary += canary
        if elapsed_s < self._next_s:
            return False
        self._next_s += self._look_s
        return p_value(self._stable, self._canary) < self._alpha


def p_value(stable: Pair, canary: Pair) -> float:
    """One-sided p-value of a pooled z-test of two ratios; 1 if there is too little data."""
    both = stable + canary
    if not stable.total or canary.bad < _LEAST_BAD or both.bad == both.total:
        return 1.0
    pooled = both.bad / both.total
    deviation = math.sqrt(pooled * (1 - pooled) * (1 / stable.total + 1 / canary.total))
    z = (canary.bad / canary.total - stable.bad / stable.total) / deviation
    return math.erfc(z / math.sqrt(2)) / 2
