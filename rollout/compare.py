"""How many of the requests in the steps are asked of both versions.

In the steps each request has one answer. Where the plan has `compare`, a share of what each version answers is asked of
the other one as well, so that pairs of answers go on coming. Neither gets more copies than it has requests of its own:
a step is small so that little depends on the canary, and its load is small with it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Copied:
    """Shares, 0 to 1, of the requests of each version that the other one gets a copy of."""

    of_stable: float
    of_canary: float


def copied(compare: float, weight: float) -> Copied:
    """What is copied at one weight.

    Args:
        compare: share of each version's requests that the plan wants compared, 0 to 1.
        weight: the canary's share of the traffic, above 0 and below 1.
    """
    return Copied(of_stable=min(compare, weight / (1 - weight)), of_canary=min(compare, (1 - weight) / weight))


def canary_load(compare: float, weight: float) -> float:
    """Requests that the canary answers at this weight, copies included, as a share of the traffic."""
    return weight + (1 - weight) * copied(compare, weight).of_stable
