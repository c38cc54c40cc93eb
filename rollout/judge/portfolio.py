"""One e-value from many: the weighted mean over families of signals, and over the signals of a family.

Called by `judge.Judge`. Knows families, shares and e-values; nothing of counts.

A mean of e-values is an e-value whatever their dependence, and is never later than a Bonferroni split of alpha.
Signals may appear while the release runs, a class that nobody predicted before or labels that come late. Their share
is taken from what the others have won so far: were it fresh money, every newcomer would add false alarms.
"""

import math
from collections.abc import Callable, Mapping

from rollout.judge.logarithms import log_sum


class Portfolio:
    """Shares of signals in the combined evidence. Shares are fixed before the evidence that they weigh."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """
        Args:
            weights: relative weight of each family, whether or not it ever appears; 0 takes no part.
        """
        self._weights = weights
        self._members: dict[str, list[str]] = {}  # family -> its signals
        self._log_share: dict[str, float] = {}

    def admit(self, signal: str, family: str, log_e: Callable[[str], float]) -> None:
        """Give a new signal its share of the present wealth.

        Args:
            log_e: the log e-value of each present signal, before the tick in which the new one appears.
        """
        weight = self._weights[family]
        if not weight:
            return
        if family in self._members:
            donors = self._members[family]
            fraction = 1 / (len(donors) + 1)
        else:
            donors = list(self._log_share)
            fraction = weight / (weight + sum(self._weights[present] for present in self._members))
        wealth = log_sum(self._log_share[donor] + log_e(donor) for donor in donors) if donors else 0.0
        for donor in donors:
            self._log_share[donor] += math.log1p(-fraction)
        self._members.setdefault(family, []).append(signal)
        self._log_share[signal] = wealth + math.log(fraction)

    def log_share(self, signal: str) -> float:
        """Log of what a signal's e-value counts for in the combined one; -inf when it takes no part."""
        return self._log_share.get(signal, -math.inf)
