"""One e-value from many: the weighted mean over families of signals, and over the signals of a family.

A mean of e-values is an e-value whatever their dependence, and it never decides later than a Bonferroni split of alpha.
Signals may appear during the release, such as a class that was never predicted before, or labels that arrive late.
Their share is taken from the wealth of the other signals: with new money, every new signal would add false alarms.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from rollout.judge.logarithms import log_sum


class Portfolio:
    """Shares of signals in the combined evidence. Shares are fixed before the evidence that they weigh."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """
        Args:
            weights: relative weight of each family, whether or not it ever appears; 0: the family takes no part.
        """
        self._weights = weights
        self._members: dict[str, list[str]] = {}  # family -> its signals
        self._log_share: dict[str, float] = {}

    def admit(self, signals: Sequence[str], family: str, log_e: Callable[[str], float]) -> None:
        """Give new signals of one family their shares of the present wealth, as if they came one after the other.

        Args:
            signals: names of the new signals.
            family: their family.
            log_e: returns the log e-value of a present signal, before the tick in which the new ones appear.
        """
        weight = self._weights[family]
        if not weight:
            return
        if members := self._members.get(family, []):
            donors: Sequence[str] = members
            fraction = len(signals) / (len(members) + len(signals))
        else:
            donors = list(self._log_share)
            fraction = weight / (weight + sum(self._weights[present] for present in self._members))
        wealth = log_sum(self._log_share[donor] + log_e(donor) for donor in donors) if donors else 0.0
        for donor in donors:
            self._log_share[donor] += math.log1p(-fraction)
        self._members[family] = [*members, *signals]
        self._log_share |= dict.fromkeys(signals, wealth + math.log(fraction / len(signals)))

    def copy(self) -> "Portfolio":
        """An independent copy."""
        made = Portfolio(self._weights)
        made._members, made._log_share = dict(self._members), dict(self._log_share)
        return made

    def log_share(self, signal: str) -> float:
        """Log of the weight of a signal's e-value in the combined one; -inf when it takes no part."""
        return self._log_share.get(signal, -math.inf)
