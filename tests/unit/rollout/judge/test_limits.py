"""Exact confidence limits of a binomial share: compared with enumeration, and their coverage."""

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
def test_the_probability_is_the_binomial_tail(bad: int, total: int, share: float) -> None:
    """Compared with the sum of its terms."""
    tail = sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(bad, total + 1))
    assert chance_of_as_many(Pair(bad, total), share) == pytest.approx(tail)


def test_a_cluster_of_failures_counts_as_one() -> None:
    """Forty failures of a hundred in clusters of four have the probability of ten of twenty-five."""
    assert chance_of_as_many(Pair(40, 100), 0.2, phi=4) == pytest.approx(chance_of_as_many(Pair(10, 25), 0.2))


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
def test_the_upper_limit_has_its_coverage(share: float) -> None:
    """It is below the true share in at most 1 % of 20,000 samples of 400, within four standard deviations."""
    bad = np.random.default_rng(1).binomial(400, share, 20_000)
    limits = {seen: upper_limit(Pair(seen, 400), 0.01) for seen in set(bad.tolist())}
    too_low = np.mean([limits[seen] < share for seen in bad.tolist()])
    assert too_low <= 0.01 + 4 * math.sqrt(0.01 * 0.99 / 20_000)


@pytest.mark.parametrize("limit", [upper_limit, upper_limit_at_any_time])
def test_the_limit_is_one_if_no_request_went_well(limit: Callable[[Pair, float], float]) -> None:
    """This includes the case of no requests."""
    assert [limit(Pair(0, 0), 0.01), limit(Pair(7, 7), 0.01)] == [1.0, 1.0]


@pytest.mark.parametrize("share", [0.02, 0.05, 0.5])
def test_the_anytime_limit_has_its_coverage_over_all_looks(share: float) -> None:
    """With fifty looks on the way to 2,000 events; the limit for one fixed sample fails there."""
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
def test_the_anytime_limit_is_where_the_mean_likelihood_ratio_is_100(bad: int, total: int, phi: float) -> None:
    """The mean over the likelihood ratios of all smaller shares is integrated with 50 digits."""
    limit = upper_limit_at_any_time(Pair(bad, total), 0.01, phi=phi)
    with mpmath.workdps(50):
        b, g, p = mpmath.mpf(bad) / phi, mpmath.mpf(total - bad) / phi, mpmath.mpf(limit)
        whole = mpmath.betainc(b + 0.5, g + 1, 0, p) / (2 * mpmath.sqrt(p))
        assert float(whole / (p**b * (1 - p) ** g)) == pytest.approx(100, rel=1e-5)


@pytest.mark.parametrize(
    ("seen", "wider"), [(Pair(0, 36_000), 1.22), (Pair(36, 36_000), 1.18), (Pair(360, 36_000), 1.08)]
)
def test_the_anytime_limit_is_only_a_little_wider(seen: Pair, wider: float) -> None:
    """The factors for half an hour at 20 requests a second that docs/decisions/0013 states."""
    assert upper_limit(seen, 0.01) < upper_limit_at_any_time(seen, 0.01) < wider * upper_limit(seen, 0.01)
