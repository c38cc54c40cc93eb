"""Exact limits of one share: against brute force, and in what they promise."""

import math

import numpy as np
import pytest

from rollout.judge import Pair
from rollout.judge.limits import chance_of_as_many, upper_limit


@pytest.mark.parametrize(
    ("bad", "total", "share"), [(0, 5, 0.2), (3, 5, 0.2), (5, 5, 0.2), (12, 40, 0.2), (1, 300, 0.01)]
)
def test_the_chance_is_the_binomial_tail(bad: int, total: int, share: float) -> None:
    """Term by term."""
    tail = sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(bad, total + 1))
    assert chance_of_as_many(Pair(bad, total), share) == pytest.approx(tail)


def test_clusters_are_worth_as_many_accidents_less() -> None:
    """Forty failures of a hundred in clusters of four are as likely as ten of twenty-five."""
    assert chance_of_as_many(Pair(40, 100), 0.2, phi=4) == pytest.approx(chance_of_as_many(Pair(10, 25), 0.2))


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
def test_the_upper_limit_is_rarely_too_low(share: float) -> None:
    """In at most one of a hundred samples of 400, within four standard deviations of 20,000."""
    bad = np.random.default_rng(1).binomial(400, share, 20_000)
    limits = {seen: upper_limit(Pair(seen, 400), 0.01) for seen in set(bad.tolist())}
    too_low = np.mean([limits[seen] < share for seen in bad.tolist()])
    assert too_low <= 0.01 + 4 * math.sqrt(0.01 * 0.99 / 20_000)


def test_where_nothing_was_seen_everything_is_possible() -> None:
    """No request, or none that went well."""
    assert [upper_limit(Pair(0, 0), 0.01), upper_limit(Pair(7, 7), 0.01)] == [1.0, 1.0]
