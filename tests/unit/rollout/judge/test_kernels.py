"""The e-values of one window: golden numbers, validity by enumeration, and 50-digit arithmetic."""

import itertools
import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, nchypergeom_fisher

from rollout.judge import Pair
from rollout.judge.kernels import bounded, exact, exact_of_all, rare

ODDS_RATIOS = (1.15, 1.5, 2.5, 5.0, 12.0, 40.0)
TOLERANCES = (1.0, 1.25, 2.0)


@pytest.mark.parametrize(
    ("stable", "canary", "log_e", "expected"),
    [
        ((1, 90), (2, 10), lambda s, c: exact(s, c, odds_ratios=[5]), 2.231620),
        ((1, 90), (2, 10), lambda s, c: rare(s, c, odds_ratios=[5]), 2.209459),
        ((1, 90), (2, 10), lambda s, c: rare(s, c, odds_ratios=[5], tolerance=1.25, margin=0.0005), 2.015167),
        ((0, 9), (1, 1), lambda s, c: exact(s, c, odds_ratios=[5]), 1.272966),
        ((0, 9), (1, 1), lambda s, c: rare(s, c, odds_ratios=[5]), 1.272966),
        ((3, 50), (7, 50), lambda s, c: exact(s, c, odds_ratios=[2.5], tolerance=1.25), 0.470439),
        ((200, 900), (40, 100), lambda s, c: exact(s, c, odds_ratios=[1.5], tolerance=1.5), 1.958559),
        ((200, 900), (40, 100), lambda s, c: rare(s, c, odds_ratios=[1.5], tolerance=1.5), -0.339685),
        ((0, 90), (0, 10), lambda s, c: exact(s, c, odds_ratios=[12]), 0.0),
        ((90, 90), (10, 10), lambda s, c: exact(s, c, odds_ratios=[12]), 0.0),
        ((90, 90), (10, 10), lambda s, c: rare(s, c, odds_ratios=[12]), -49.344668),
        ((0, 9900), (2, 100), lambda s, c: rare(s, c, odds_ratios=[40], tolerance=1.25, margin=0.0005), 5.289563),
    ],
)
def test_golden_numbers(
    stable: tuple[int, int], canary: tuple[int, int], log_e: Callable[[Pair, Pair], list[float]], expected: float
) -> None:
    """They were computed once with 50 digits; six decimals agree."""
    assert log_e(Pair(*stable), Pair(*canary)) == [pytest.approx(expected, abs=1e-6)]


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_exact_has_an_expected_value_of_at_most_one_given_the_totals(tolerance: float) -> None:
    """At the edge of the tolerance the expectation over all splits of the bad events is 1; within it, it is less."""
    for n_s, n_c, k in ((3, 2, 2), (9, 1, 4), (5, 5, 5), (30, 4, 7), (400, 300, 350)):
        for odds_ratio in (0.5 * tolerance, tolerance):
            splits = np.arange(max(0, k - n_s), min(n_c, k) + 1)
            chances = nchypergeom_fisher(n_s + n_c, n_c, k, odds_ratio).pmf(splits)
            e = np.exp(
                [exact(Pair(k - x, n_s), Pair(x, n_c), odds_ratios=ODDS_RATIOS, tolerance=tolerance) for x in splits]
            )
            assert (chances @ e <= 1 + 1e-9).all()


@pytest.mark.parametrize("tolerance", TOLERANCES)
@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_rare_has_an_expected_value_of_at_most_one_for_any_rates_within_tolerance(
    tolerance: float, margin: float
) -> None:
    """All small tables are enumerated, with the canary exactly at the edge of what is harmless."""
    for n_s, n_c in ((1, 1), (3, 2), (2, 6), (9, 3)):
        tables = [(y, x) for y in range(n_s + 1) for x in range(n_c + 1)]
        e = np.exp(
            [
                rare(Pair(y, n_s), Pair(x, n_c), odds_ratios=ODDS_RATIOS, tolerance=tolerance, margin=margin)
                for y, x in tables
            ]
        )
        for p_s in (0.0, 0.001, 0.05, 0.2, 0.45):
            p_c = min(1.0, tolerance * p_s + margin)
            chances = np.array([binom.pmf(y, n_s, p_s) * binom.pmf(x, n_c, p_c) for y, x in tables])
            assert (chances @ e <= 1 + 1e-9).all()


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_rare_is_also_valid_given_the_totals(tolerance: float) -> None:
    """So under random routing, bursts shared by both versions do not invalidate it (Hoeffding 1963, theorem 4)."""
    for n_s, n_c, k in ((3, 2, 2), (9, 1, 4), (5, 5, 5), (30, 4, 7)):
        splits = np.arange(max(0, k - n_s), min(n_c, k) + 1)
        chances = nchypergeom_fisher(n_s + n_c, n_c, k, tolerance).pmf(splits)
        e = np.exp([rare(Pair(k - x, n_s), Pair(x, n_c), odds_ratios=ODDS_RATIOS, tolerance=tolerance) for x in splits])
        assert (chances @ e <= 1 + 1e-9).all()


@pytest.mark.parametrize(
    ("canary", "odds_ratio", "limit", "expected"),
    [
        ((128, 412), 5, 0.1, 67.3814913036),
        ((3, 10), 2.5, 0.1, 1.35125277187),
        ((0, 50), 12, 0.02, -9.94254293726),
        ((0, 0), 12, 0.02, 0.0),
    ],
)
def test_golden_numbers_against_a_fixed_share(
    canary: tuple[int, int], odds_ratio: float, limit: float, expected: float
) -> None:
    """The binomial likelihood ratio, computed once with 50 digits."""
    assert bounded(Pair(*canary), odds_ratios=[odds_ratio], limit=limit) == [pytest.approx(expected, abs=1e-9)]


@pytest.mark.parametrize("limit", [0.001, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("total", [1, 2, 7, 60])
def test_bounded_has_an_expected_value_of_one_at_its_limit_and_less_below(limit: float, total: int) -> None:
    """Every count is enumerated, for every odds ratio."""
    bad = np.arange(total + 1)
    e = np.exp([bounded(Pair(int(x), total), odds_ratios=ODDS_RATIOS, limit=limit) for x in bad])
    assert binom.pmf(bad, total, limit) @ e == pytest.approx(1, abs=1e-9)
    for share in (0.0, 0.5 * limit, 0.99 * limit):
        assert (binom.pmf(bad, total, share) @ e <= 1 + 1e-9).all()


def test_bounded_is_valid_for_dependent_events() -> None:
    """All sequences of eight events are enumerated; each probability depends on the past and is within the limit."""
    limit, mean = 0.3, np.zeros(len(ODDS_RATIOS))
    for events in itertools.product((0, 1), repeat=8):
        chance = 1.0
        for i, event in enumerate(events):
            p = limit if sum(events[:i]) % 2 else 0.2 * limit
            chance *= p if event else 1 - p
        mean += chance * np.exp(bounded(Pair(sum(events), 8), odds_ratios=ODDS_RATIOS, limit=limit))
    assert (mean <= 1 + 1e-9).all()


@pytest.mark.parametrize(
    ("stable", "canary"),
    [
        ((3, 50), (7, 50)),
        ((40, 900), (30, 100)),  # summed term by term
        ((300, 2_000), (200, 1_000)),  # summed by sampling
        ((12_000, 16_000), (449, 449)),  # at the edge of the support
        ((5, 27), (1_202, 6_259)),
        ((1_000, 999_000), (4, 1_000)),
        ((45_000, 900_000), (5_500, 100_000)),
        ((3_000_000, 9_000_000), (340_000, 1_000_000)),
    ],
)
@pytest.mark.parametrize("tolerance", [1.0, 1.5])
def test_exact_agrees_with_50_digits_and_errs_downwards(
    stable: tuple[int, int], canary: tuple[int, int], tolerance: float
) -> None:
    """From ten to ten million requests the error is at most 3e-9, and above the true value only by rounding."""
    for r, log_e in zip(
        (1.5, 12.0), exact(Pair(*stable), Pair(*canary), odds_ratios=(1.5, 12.0), tolerance=tolerance), strict=True
    ):
        truth = _true_log_e(Pair(*stable), Pair(*canary), r, tolerance)
        assert -3e-9 <= log_e - truth <= 2e-9


@given(
    n_s=st.integers(0, 10_000_000),
    n_c=st.integers(0, 10_000_000),
    bad=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    tolerance=st.sampled_from(TOLERANCES),
)
def test_e_values_are_finite_for_any_counts(n_s: int, n_c: int, bad: tuple[float, float], tolerance: float) -> None:
    """Nothing overflows or is undefined, from none to ten million requests a window."""
    stable, canary = Pair(int(bad[0] * n_s), n_s), Pair(int(bad[1] * n_c), n_c)
    for log_e in (
        *exact(stable, canary, odds_ratios=ODDS_RATIOS, tolerance=tolerance),
        *rare(stable, canary, odds_ratios=ODDS_RATIOS, tolerance=tolerance, margin=0.0005),
        *bounded(canary, odds_ratios=ODDS_RATIOS, limit=0.1),
    ):
        assert math.isfinite(log_e)


@given(bad=st.integers(0, 50), total=st.integers(50, 1000))
def test_a_window_with_one_side_only_is_not_evidence(bad: int, total: int) -> None:
    """Without requests on both sides there is nothing to compare: log e is exactly 0."""
    for kernel in (exact, rare):
        assert kernel(Pair(bad, total), Pair(0, 0), odds_ratios=(5.0,)) == [0.0]
        assert kernel(Pair(0, 0), Pair(bad, total), odds_ratios=(5.0,)) == [0.0]


@given(n_s=st.integers(1, 400), n_c=st.integers(1, 400), k=st.integers(1, 300), shift=st.integers(1, 50))
def test_more_harm_never_lowers_the_evidence(n_s: int, n_c: int, k: int, shift: int) -> None:
    """Of the same bad events, more on the canary give a higher e-value in every case."""
    low, high = max(0, k - n_s), min(n_c, k)
    if low >= high:
        return
    fewer = low + shift % (high - low)
    for kernel in (exact, rare):
        less = kernel(Pair(k - fewer, n_s), Pair(fewer, n_c), odds_ratios=ODDS_RATIOS, tolerance=1.25)
        more = kernel(Pair(k - fewer - 1, n_s), Pair(fewer + 1, n_c), odds_ratios=ODDS_RATIOS, tolerance=1.25)
        assert all(a < b for a, b in zip(less, more, strict=True))


@given(n_s=st.integers(1, 300), n_c=st.integers(1, 300), bad=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_exact_is_symmetric_in_the_outcome_that_is_called_bad(n_s: int, n_c: int, bad: tuple[float, float]) -> None:
    """Swapping the outcomes and the versions gives the same evidence."""
    y, x = int(bad[0] * n_s), int(bad[1] * n_c)
    one = exact(Pair(y, n_s), Pair(x, n_c), odds_ratios=ODDS_RATIOS, tolerance=1.25)
    other = exact(Pair(n_c - x, n_c), Pair(n_s - y, n_s), odds_ratios=ODDS_RATIOS, tolerance=1.25)
    assert one == pytest.approx(other, abs=1e-8)


def _many_comparisons(seed: int) -> list[tuple[Pair, Pair, float]]:
    """Windows of all sizes and shares: ten to ten million requests, from almost none to all of them bad."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(300):
        total, weight, bad = 10 ** rng.uniform(1, 7), 10 ** rng.uniform(-2.5, -0.05), 10 ** rng.uniform(-5, 0)
        n_c = max(1, int(total * weight))
        n_s = max(1, int(total) - n_c)
        worse = min(1.0, bad * rng.choice([0.5, 1, 1, 2, 5]))
        arms = (Pair(int(rng.binomial(n, p)), n) for n, p in ((n_s, bad), (n_c, worse)))
        made.append((*arms, float(rng.choice([1, 1.25, 4]))))
    return made


def test_comparisons_in_one_batch_have_the_evidence_of_each_alone() -> None:
    """A batch shares sums of equal counts and walks long sums together, which changes only rounding."""
    comparisons = _many_comparisons(1)
    together = exact_of_all([*comparisons, *comparisons[:50]], odds_ratios=ODDS_RATIOS)
    alone = [exact(s, c, odds_ratios=ODDS_RATIOS, tolerance=tolerance) for s, c, tolerance in comparisons]
    assert together[:300] == pytest.approx(np.array(alone), rel=1e-14, abs=3e-9)
    assert together[300:] == pytest.approx(together[:50], rel=1e-14, abs=1e-12)


def test_evidence_does_not_depend_on_the_batch_to_the_last_bit() -> None:
    """A restarted judge computes the same windows in other batches."""
    comparisons = _many_comparisons(4)
    together = exact_of_all(comparisons, odds_ratios=ODDS_RATIOS)
    for size in (1, 7):
        parts = [comparisons[at : at + size] for at in range(0, len(comparisons), size)]
        apart = np.concatenate([exact_of_all(part, odds_ratios=ODDS_RATIOS) for part in parts])
        np.testing.assert_array_equal(apart, together)


def test_an_e_value_under_its_floor_is_a_lower_bound_and_otherwise_exact() -> None:
    """A lower bound is still valid, as its expectation is smaller."""
    comparisons = _many_comparisons(2)
    truth = exact_of_all(comparisons, odds_ratios=ODDS_RATIOS)
    floors = np.random.default_rng(3).normal(truth, 30)
    found = exact_of_all(comparisons, odds_ratios=ODDS_RATIOS, floors=floors)
    is_lost = (found < truth - 1e-6) & (truth < floors)
    assert 0.1 < is_lost.mean() < 0.5
    assert (found[is_lost] < floors[is_lost]).all()
    assert found[~is_lost] == pytest.approx(truth[~is_lost], rel=1e-14, abs=1e-11)


def test_comparisons_without_events_are_not_evidence() -> None:
    """Log e is exactly 0 in any batch, and an empty batch is allowed."""
    nothing = [(Pair(0, 90), Pair(0, 10), 1.5), (Pair(3, 90), Pair(0, 0), 1.5), (Pair(0, 0), Pair(3, 90), 1.5)]
    assert exact_of_all([], odds_ratios=ODDS_RATIOS).shape == (0, len(ODDS_RATIOS))
    assert (exact_of_all(nothing, odds_ratios=ODDS_RATIOS) == 0).all()
    found = exact_of_all([*nothing, (Pair(3, 50), Pair(7, 50), 1.25)], odds_ratios=[2.5])
    assert found[:, 0] == pytest.approx([0, 0, 0, 0.470439], abs=1e-6)


def _true_log_e(stable: Pair, canary: Pair, odds_ratio: float, tolerance: float) -> float:
    """Computed by summing every term that matters with 50 digits."""
    with mpmath.workdps(50):
        r, tol = mpmath.mpf(odds_ratio), mpmath.mpf(tolerance)
        sums = [_normaliser(stable.total, canary.total, stable.bad + canary.bad, odds) for odds in (tol, tol * r)]
        return float(canary.bad * mpmath.log(r) + sums[0] - sums[1])


def _normaliser(n_s: int, n_c: int, k: int, odds: mpmath.mpf) -> mpmath.mpf:
    low, high = max(0, k - n_s), min(n_c, k)

    def ratio(u: int) -> mpmath.mpf:
        return odds * (n_c - u) * (k - u) / ((u + 1) * (n_s - k + u + 1))

    left, right = low, high  # the largest term, by bisection on the ratio of neighbouring terms
    while left < right:
        middle = (left + right) // 2
        left, right = (middle + 1, right) if ratio(middle) > 1 else (left, middle)
    largest = left
    total = term = mpmath.mpf(1)
    for u in range(largest, high):
        term *= ratio(u)
        total += term
        if term < mpmath.mpf(10) ** -30:
            break
    term = mpmath.mpf(1)
    for u in range(largest - 1, low - 1, -1):
        term /= ratio(u)
        total += term
        if term < mpmath.mpf(10) ** -30:
            break
    ways = (mpmath.loggamma(n + 1) for n in (largest, n_c - largest, k - largest, n_s - k + largest))
    return mpmath.log(total) + largest * mpmath.log(odds) - sum(ways)
