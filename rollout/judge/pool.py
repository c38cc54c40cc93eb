"""Combines the evidence of several signals: the weighted mean of their e-values, see `portfolio`."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from rollout.judge.evidence import SignalEvidence
from rollout.judge.fail import Stream
from rollout.judge.logarithms import log_add, log_sum
from rollout.judge.portfolio import Portfolio
from rollout.judge.types import SignalRule


class Pool:
    """Signals and their shares. An excused signal counts in none of the sums.

    Args:
        rules: by family.
        carried: by signal, natural log of the evidence from an earlier release, see `carried`.
        is_excused: whether the signal of this name is excused.
    """

    def __init__(
        self, rules: Mapping[str, SignalRule], carried: Mapping[str, float], is_excused: Callable[[str], bool]
    ) -> None:
        self.signals: dict[str, SignalEvidence] = {}
        self._weights = {family: rule.weight for family, rule in rules.items()}
        self._portfolio = Portfolio(self._weights)
        self._rules, self._carried, self._is_excused = rules, carried, is_excused

    def apart(self, names: Collection[str]) -> "Pool":
        """A copy of the pool, in which the evidence of the named signals is independent from now on."""
        pool = Pool(self._rules, self._carried, self._is_excused)
        pool.signals = {name: each.apart() if name in names else each for name, each in self.signals.items()}
        pool._portfolio = self._portfolio.copy()
        return pool

    def admit(self, family: str, new: Mapping[str, SignalEvidence]) -> None:
        """Add new signals of one family with their shares, before the counts of their first tick are used."""
        self._portfolio.admit(tuple(new), family, lambda present: self.signals[present].log_e)
        self.signals |= new

    def log_share(self, name: str) -> float:
        """See `Portfolio.log_share`."""
        return self._portfolio.log_share(name)

    def to_fail(self, *, rollback_only: bool = False) -> dict[str, float]:
        """By signal, the natural log of its part of the evidence that may FAIL."""
        evidence = {
            name: self.log_share(name) + signal.log_e_to_fail(rollback_only=rollback_only)
            for name, signal in self.signals.items()
            if not self._is_excused(name)
        }
        for name, log_won in self._carried.items():
            if name in evidence:
                continued = self.signals[name].log_e_to_fail(rollback_only=rollback_only, is_continued=True)
                evidence[name] = log_add(evidence[name], log_won + continued)
        return evidence

    def log_e(self) -> float:
        """Log e-value of all signals together."""
        evidence = log_sum(self._log_part(name) for name in self.signals if not self._is_excused(name))
        return evidence if evidence > -math.inf else 0.0

    def log_weights(self) -> dict[Stream, float]:
        """By stream, the log of its e-value's weight in `log_e`, as long as no signal is excused."""
        return {
            stream: log_weight
            for name, signal in self.signals.items()
            for stream, log_weight in signal.log_weights(
                own=self.log_share(name), continued=self._carried.get(name, -math.inf)
            )
        }

    def log_e_of(self, name: str) -> float:
        """Log e-value of one signal; carried evidence counts as if this signal had won all of it."""
        share = self.log_share(name)
        return self._log_part(name) - share if share > -math.inf else self.signals[name].log_e

    def better_log_e(self, families: Sequence[str]) -> float:
        """Log e-value for "the canary is better": of the mean over `families`; a family not seen yet counts as 1."""
        seen = [self.signals[family].better_log_e if family in self.signals else 0.0 for family in families]
        return log_sum(seen) - math.log(len(seen))

    def _log_part(self, name: str) -> float:
        """Log of a signal's part of the combined evidence."""
        signal = self.signals[name]
        own = self.log_share(name) + signal.log_e
        if not self._carried:
            return own
        return log_add(own, self._carried.get(name, -math.inf) + signal.continued_log_e)
