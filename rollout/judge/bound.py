"""How much worse than stable could the canary be? An upper bound on its excess of bad events, valid at all times.

It is used for the signals that the risk budget covers. The bound is about the windows seen so far: `fail` finds harm
that begins later, or that a good average hides.

For each bet theta, with c = 1 - exp(-theta), the process
    exp(sum of c n_c m - theta x + y log(1 + c n_c / n_s)),   x of n_c bad on canary, y of n_s on stable,
has a mean of at most 1 when m is at most the true excess: E e^(-theta x) <= exp(-c n_c p_c) and
E (1 + c n_c / n_s)^y <= exp(c n_c p_s). Both hold for any independent requests and separately in every window, so
neither a ramp of the weight nor a drifting base rate can mislead it. The two together would mislead a comparison of
the two pooled error ratios.
The same holds for a mixture of such bets whose weights are fixed before the release; the bound is the smallest m that
the mixture refutes.
Sources: Ville 1939; Howard & Ramdas, arXiv:1906.09712 (mixtures over theta).
"""

import math
from collections.abc import Sequence

from rollout.judge.bets import EVEN_BETS, Bets
from rollout.judge.logarithms import log_sum, reached_at
from rollout.judge.own_noise import INDEPENDENT, OwnNoise
from rollout.judge.types import Pair

_POOL_REQUESTS = 20  # of either arm, before a bet; the share of two small totals is mostly chance
_SAME_WEIGHT_CHI2 = 16.0  # four standard deviations between the canary shares of two windows
LATE = 3.0  # times the forecast; half of all proofs take as many requests as forecast, nine in ten twice as many
_NOTHING = Pair(0, 0)


class ExcessBound:
    """Upper bound on the mean excess of the canary's bad ratio over stable's, over the canary's own requests.

    The chance that the bound is EVER below the true mean excess is at most `alpha`.
    """

    def __init__(self, alpha: float, *, noise: OwnNoise = INDEPENDENT, bets: Bets = EVEN_BETS) -> None:
        """
        Args:
            alpha: chance of error over the whole release.
            noise: dispersion that tempers each bet.
            bets: the mixture; chosen before the first window.
        """
        self.least_phi = 1.0  # lower limit for phi of all bets together, also of earlier ones; may be set again
        self._noise = noise
        self._enough = -math.log(alpha)
        self._bets = bets
        self._credits = [-math.expm1(-theta) for theta in bets.thetas]
        self._stable = self._canary = _NOTHING
        self._requests = self._bad = 0.0  # all and bad requests of the canary, each window times its `_weight`
        self._stable_log_growth = [0.0] * len(bets.thetas)  # the same sums of y log(1 + c n_c / n_s)
        self._odds = 0.0  # canary requests per stable request, in the last window with both
        self._pool_stable = self._pool_canary = _NOTHING  # windows of one weight that are not in the evidence yet

    def observe(self, stable: Pair, canary: Pair) -> None:
        """Add one window. Small windows are pooled; which ones depends on totals only, never on bad events."""
        if self._pool_stable.total or self._pool_canary.total:
            if _weights_differ(self._pool_stable, self._pool_canary, stable, canary):
                self._bet()
            self._pool_stable += stable
            self._pool_canary += canary
        else:
            self._pool_stable, self._pool_canary = stable, canary
        if max(self._pool_stable.total, self._pool_canary.total) >= _POOL_REQUESTS:
            self._bet()

    def log_e(self, excess: float) -> float:
        """Log e-value against the null hypothesis "the mean excess is at least `excess`"."""
        return log_sum(self._log_bets(excess))

    def upper(self) -> float:
        """The bound, 0 to 1; 1 while there is no evidence."""
        if self.log_e(1.0) < self._enough:
            return 1.0
        phi = self._phi
        slopes = [credit * self._requests / phi for credit in self._credits]
        return max(0.0, reached_at(self._enough, self._log_bets(0.0), slopes, start=1.0))

    def more_needed(self, excess: float, *, weight: float | None = None) -> float:
        """About how many more canary requests until the bound is at most `excess`, if the canary is as good as stable.

        0 when it already is; inf when no number of requests can show it at this base rate. Exact to 10 % without
        bad events; otherwise a quarter to twice as many is usual.

        Args:
            excess: excess of the bad ratio, 0 to 1.
            weight: canary share of the traffic to come, 0 to 1; None: the latest share.
        """
        if excess >= 1:
            return 0.0
        now = self._log_bets(excess)
        if log_sum(now) >= self._enough:
            return 0.0
        share = self._odds / (1 + self._odds) if weight is None else weight
        return self._needed_from(now, self._mean_growth(excess, share))

    def is_late(self, excess: float) -> bool:
        """Whether a canary as good as stable would very likely have shown by now that its excess is at most `excess`.

        If so, a new forecast would be wrong as well: the canary may be a little worse than stable.
        """
        usual = self._needed_from(self._bets.log_stakes, self._mean_growth(excess, self._odds / (1 + self._odds)))
        return self._canary.total > LATE * usual and self.log_e(excess) < self._enough

    def _needed_from(self, logs: Sequence[float], growth: Sequence[float]) -> float:
        """Canary requests until bets whose logs are now `logs` reach log(1 / alpha); inf for never."""
        alone = [(self._enough - log_bet) / rate for log_bet, rate in zip(logs, growth, strict=True) if rate > 0]
        if not alone:
            return math.inf
        return reached_at(self._enough, logs, growth, start=min(alone))  # by then one bet alone suffices

    def _bet(self) -> None:
        """Add the pooled windows to the evidence."""
        stable, canary = self._pool_stable, self._pool_canary
        self._pool_stable = self._pool_canary = _NOTHING
        if not canary.total:
            return
        weight = self._weight(canary.total / (stable.total + canary.total), is_loud=self._noise.is_loud(stable))
        self._requests += weight * canary.total
        self._bad += weight * canary.bad
        if stable.total:
            self._odds = canary.total / stable.total
            if stable.bad:
                for i, credit in enumerate(self._credits):
                    self._stable_log_growth[i] += weight * stable.bad * math.log1p(credit * self._odds)
        self._stable += stable
        self._canary += canary

    def _log_bets(self, excess: float) -> list[float]:
        """Log of each bet times its stake."""
        allowed, bad, phi = self._requests * excess, self._bad, self._phi
        return [
            log_stake + (credit * allowed - theta * bad + growth) / phi
            for log_stake, theta, credit, growth in zip(
                self._bets.log_stakes, self._bets.thetas, self._credits, self._stable_log_growth, strict=True
            )
        ]

    def _weight(self, share: float, *, is_loud: bool) -> float:
        """The weight in the sums of a window with this share of canary requests; 1 where all noise is clusters.

        With phi the window's dispersion, e^(1/phi) has a mean of at most 1. It still has where phi grows with stable's
        bad events: e and phi both rise with them, and canary's bad events are independent of them given the rates.
        """
        return self._noise.clusters / self._noise.of_bound(share, is_loud=is_loud)

    @property
    def _phi(self) -> float:
        """The divisor of the weighted sums: all bets together are tempered by at least `least_phi`."""
        mean_weight = self._requests / self._canary.total if self._canary.total else 1.0
        return max(self._noise.clusters, self.least_phi * mean_weight)

    def _mean_growth(self, excess: float, share: float) -> list[float]:
        """Expected growth of the log of each bet per canary request, at the base rate so far and outside blips."""
        odds = share / (1 - share)
        phi = self._phi / self._weight(share, is_loud=False)
        seen = self._stable + self._canary
        base = (seen.bad + 0.3) / (seen.total + 0.6) if seen.total else 0.0
        return [
            (credit * excess - theta * base + base * _log1p_ratio(credit, odds)) / phi
            for theta, credit in zip(self._bets.thetas, self._credits, strict=True)
        ]


def _log1p_ratio(credit: float, odds: float) -> float:
    """log(1 + credit x odds) / odds, with its limit at odds 0."""
    return math.log1p(credit * odds) / odds if odds else credit


def _weights_differ(stable: Pair, canary: Pair, next_stable: Pair, next_canary: Pair) -> bool:
    """Whether two windows' canary shares differ by more than chance (chi-squared of the totals)."""
    before, after = stable.total + canary.total, next_stable.total + next_canary.total
    canaries, stables = canary.total + next_canary.total, stable.total + next_stable.total
    if not (before and after and canaries and stables):
        return False
    cross = canary.total * next_stable.total - next_canary.total * stable.total
    return cross * cross * (before + after) > _SAME_WEIGHT_CHI2 * before * after * canaries * stables
