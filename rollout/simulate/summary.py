"""Shares and quantiles over many simulated releases, each with its sampling error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rollout.judge.limits import lower_limit, upper_limit
from rollout.judge.types import Pair

_SIDE = 0.025  # left out on either side of a 95 % confidence interval
_Z = 1.96  # standard deviations of a 95 % interval


@dataclass(frozen=True, slots=True)
class Proportion:
    """`count` of `of` releases."""

    count: int
    of: int

    @property
    def ratio(self) -> float:
        return self.count / self.of

    @property
    def low(self) -> float:
        """Lower end of the exact 95 % confidence interval. Source: Clopper & Pearson 1934."""
        return lower_limit(Pair(self.count, self.of), _SIDE)

    @property
    def high(self) -> float:
        """Its upper end."""
        return upper_limit(Pair(self.count, self.of), _SIDE)


@dataclass(frozen=True, slots=True)
class Quantile:
    """A value that a share of the releases does not exceed, and its 95 % confidence interval; inf: not reached."""

    value: float
    low: float
    high: float


def proportion(claims: Sequence[bool]) -> Proportion:
    """How many of `claims` are true."""
    return Proportion(sum(claims), len(claims))


def quantile(values: Sequence[float], q: float) -> Quantile:
    """The `q` quantile of `values`, at least one; inf is a value like any other.

    The interval is that of the order statistics whose rank is binomial (normal approximation); it assumes nothing
    about the distribution.
    """
    ordered, n = sorted(values), len(values)
    spread = _Z * math.sqrt(n * q * (1 - q))

    def ranked(rank: float) -> float:
        return ordered[min(max(math.ceil(rank), 1), n) - 1]

    return Quantile(ranked(n * q), ranked(n * q - spread), ranked(n * q + spread + 1))
