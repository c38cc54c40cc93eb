"""Formats simulated outcomes as cells of a table."""

import math
from collections.abc import Sequence

from rollout.format import share
from rollout.simulate.summary import proportion, quantile


def often(claims: Sequence[bool]) -> str:
    """How often the claims hold, with the 95 % confidence interval."""
    found = proportion(claims)
    return f"{share(found.ratio)} ({share(found.low)} to {share(found.high)})"


def times(times_s: Sequence[float]) -> str:
    """Median and 90th percentile of times up to an hour; inf: never."""
    values = [quantile(times_s, q).value for q in (0.5, 0.9)]
    return " / ".join(f"{value:.0f}" if math.isfinite(value) else "not in an hour" for value in values)


def middle(ratios: Sequence[float]) -> str:
    """The median."""
    return share(quantile(ratios, 0.5).value)
