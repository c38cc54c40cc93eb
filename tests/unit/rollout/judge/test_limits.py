"""Exact limits of one share: against brute force, and in what they promise."""

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest

from rollout.judge import Pair
from rollout.judge.limits import chance_of_as_many, upper_limit, upper_limit_at_any_time


@pytest.mark.parametrize(
    ("bad", "total", "share"), [(0, 5, 0.2), (3, 5, 0.2), (5, 5, 0.2), (12, 40, 0.2), (1, 300, 0.01)]
)
def test_the_chance_is_the_binomial_tail(bad: int, total: int, share: float) -> None:
    """Term by term."""
    tail = sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(bad, total + 1))
    assert chance_of_as_many(Pair(bad, total), share) == pytest.approx(tail)


def test_a_cluster_of_failures_counts_as_one() -> None:
    """Forty failures of a hundred in clusters of four are as likely as ten of twenty-five."""
    assert chance_of_as_many(Pair(40, 100), 0.2, phi=4) == pytest.approx(chance_of_as_many(Pair(10, 25), 0.2))


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
def test_the_upper_limit_is_rarely_too_low(share: float) -> None:
    """In at most one of a hundred samples of 400, within four standard deviations of 20,000."""
    bad = np.random.default_rng(1).binomial(400, share, 20_000)
    limits = {seen: upper_limit(Pair(seen, 400), 0.01) for seen in set(bad.tolist())}
    too_low = np.mean([limits[seen] < share for seen in bad.tolist()])
    assert too_low <= 0.01 + 4 * math.sqrt(0.01 * 0.99 / 20_000)


@pytest.mark.parametrize("limit", [upper_limit, upper_limit_at_any_time])
def test_where_nothing_was_seen_everything_is_possible(limit: Callable[[Pair, float], float]) -> None:
    """No request, or none that went well."""
    assert [limit(Pair(0, 0), 0.01), limit(Pair(7, 7), 0.01)] == [1.0, 1.0]


@pytest.mark.parametrize("share", [0.02, 0.05, 0.5])
def test_the_limit_at_any_time_is_rarely_ever_too_low(share: float) -> None:
    """Asked fifty times on the way to 2,000 events; the exact limit of one sample breaks its promise there."""
    samples, looks, step = 2000, 50, 40
    bad = np.random.default_rng(1).binomial(step, share, (samples, looks)).cumsum(axis=1)
    chance = {}
    for limit in (upper_limit_at_any_time, upper_limit):
        ever = np.zeros(samples, dtype=bool)
        for look in range(looks):
            counts = np.unique(bad[:, look])
            too_low = [int(b) for b in counts if limit(Pair(int(b), step * (look + 1)), 0.01) < share]
            ever |= np.isin(bad[:, look], too_low)
        chance[limit] = ever.mean()
    assert chance[upper_limit_at_any_time] <= 0.01 + 4 * math.sqrt(0.01 * 0.99 / samples)
    assert chance[upper_limit] > 0.03


@pytest.mark.parametrize(("bad", "total"), [(0, 300), (3, 50), (40, 4000), (360, 36_000), (40, 50)])
@pytest.mark.parametrize("phi", [1.0, 7.0])
def test_the_limit_at_any_time_is_where_the_mean_ratio_is_proof(bad: int, total: int, phi: float) -> None:
    """The likelihood ratios of all smaller shares, integrated with fifty digits."""
    limit = upper_limit_at_any_time(Pair(bad, total), 0.01, phi=phi)
    with mpmath.workdps(50):
        b, g, p = mpmath.mpf(bad) / phi, mpmath.mpf(total - bad) / phi, mpmath.mpf(limit)
        whole = mpmath.betainc(b + 0.5, g + 1, 0, p) / (2 * mpmath.sqrt(p))
        assert float(whole / (p**b * (1 - p) ** g)) == pytest.approx(100, rel=1e-5)


@pytest.mark.parametrize(
    ("seen", "wider"), [(Pair(0, 36_000), 1.22), (Pair(36, 36_000), 1.18), (Pair(360, 36_000), 1.08)]
)
def test_a_limit_at_any_time_costs_little(seen: Pair, wider: float) -> None:
    """Half an hour at 20 requests a second: what docs/decisions/0013 says about its price."""
    assert upper_limit(seen, 0.01) < upper_limit_at_any_time(seen, 0.01) < wider * upper_limit(seen, 0.01)
