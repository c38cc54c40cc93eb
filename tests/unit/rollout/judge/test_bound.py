"""The upper confidence bound on the canary's excess: golden numbers, validity by enumeration, drift and forecasts."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from rollout.judge import OwnNoise, Pair
from rollout.judge.bets import best_theta, bets_for
from rollout.judge.bound import ExcessBound

UNKNOWN = Pair(0, 0)
BUDGET = 0.005


def bound_after(
    *windows: tuple[int, int, int, int], phi: float = 1.0, noise: OwnNoise | None = None, known: Pair = UNKNOWN
) -> ExcessBound:
    """Each window is (bad, total) of stable, then of canary; `known` is stable's count from before."""
    bound = ExcessBound(0.01, noise=noise or OwnNoise.alike(phi), bets=bets_for(BUDGET, known))
    for y, n_s, x, n_c in windows:
        bound.observe(Pair(y, n_s), Pair(x, n_c))
    return bound


@pytest.mark.parametrize(
    ("window", "upper"),
    [
        ((0, 9000, 0, 1000), 0.005980),
        ((90, 9000, 10, 1000), 0.016249),
        ((0, 0, 2, 100), 0.117084),
    ],
)
def test_golden_bounds(window: tuple[int, int, int, int], upper: float) -> None:
    """The bounds were computed once with 50 digits; without stable traffic its error ratio counts as 0."""
    assert bound_after(window).upper() == pytest.approx(upper, abs=1e-6)


@pytest.mark.parametrize(
    ("window", "excess", "log_e"),
    [((0, 9000, 0, 1000), 0.005, 3.705991), ((90, 9000, 10, 1000), 0.02, 6.651724)],
)
def test_golden_evidence(window: tuple[int, int, int, int], excess: float, log_e: float) -> None:
    """Log e against a given excess, computed once with 50 digits."""
    assert bound_after(window).log_e(excess) == pytest.approx(log_e, abs=1e-6)


def test_golden_forecast() -> None:
    """At a base rate of 1 % and a weight of 50 %, about nine thousand more requests are needed."""
    assert bound_after((90, 9000, 10, 1000)).more_needed(0.005, weight=0.5) == pytest.approx(9106.6, abs=0.05)


# With 2, and with 20, or more bad events of 30, stable is loud: then bets count as little as a tenth.
LOUD_AT_2 = OwnNoise(clusters=1.0, bursts=1.5, blips=60.0, usual_ratio=0.0, usual_scatter=0.2)
LOUD_AT_20 = OwnNoise(clusters=1.5, bursts=1.5, blips=60.0, usual_ratio=0.3, usual_scatter=0.25)


@pytest.mark.parametrize(("p_s", "p_c"), [(0.0, 0.3), (0.1, 0.1), (0.1, 0.5), (0.4, 0.2), (0.6, 0.9)])
@pytest.mark.parametrize(
    ("noise", "known"),
    [
        (OwnNoise(), UNKNOWN),
        (OwnNoise.alike(2.5), UNKNOWN),
        (OwnNoise(), Pair(0, 10_000)),
        (OwnNoise(), Pair(3000, 10_000)),
        (LOUD_AT_2, UNKNOWN),
        (LOUD_AT_20, UNKNOWN),
    ],
)
def test_the_expected_e_value_at_the_true_excess_is_at_most_one(
    p_s: float, p_c: float, noise: OwnNoise, known: Pair
) -> None:
    """It is enumerated over every outcome of two windows at different weights."""
    shapes = [(30, 2), (2, 21)]
    outcomes = [
        [
            ((y, n_s, x, n_c), binom.pmf(y, n_s, p_s) * binom.pmf(x, n_c, p_c))
            for y in range(n_s + 1)
            for x in range(n_c + 1)
        ]
        for n_s, n_c in shapes
    ]
    mean = sum(
        chance_a * chance_b * math.exp(bound_after(a, b, noise=noise, known=known).log_e(p_c - p_s))
        for (a, chance_a), (b, chance_b) in itertools.product(*outcomes)
        if chance_a * chance_b > 1e-12
    )
    assert mean <= 1 + 1e-9


@pytest.mark.parametrize("known", [UNKNOWN, Pair(500, 10_000)])
def test_the_bound_is_valid_when_errors_fall_while_the_weight_rises(known: Pair) -> None:
    """Errors fall from 5 % to 0.4 % while the weight rises, and the canary is always 0.5 percentage points worse.

    Pooled over time the canary looks better than stable (Simpson's paradox). The bound is ever below the true
    excess in at most 1 % of runs.
    """
    rng = np.random.default_rng(11)
    base, weight = np.linspace(0.05, 0.004, 120), np.repeat([0.01, 0.05, 0.25, 0.5], 30)
    runs, wrong = 200, 0
    for _ in range(runs):
        n_c, n_s = rng.poisson(200 * weight), rng.poisson(200 * (1 - weight))
        x, y = rng.binomial(n_c, base + 0.005), rng.binomial(n_s, base)
        bound = bound_after(known=known)
        is_wrong = False
        for counts in zip(y.tolist(), n_s.tolist(), x.tolist(), n_c.tolist(), strict=True):
            bound.observe(Pair(*counts[:2]), Pair(*counts[2:]))
            is_wrong |= bound.log_e(0.005) >= math.log(100)
        wrong += is_wrong
    assert binomtest(wrong, runs, 0.01, alternative="greater").pvalue > 0.001


@given(
    window=st.tuples(st.integers(0, 300), st.integers(0, 3000), st.integers(0, 100), st.integers(0, 1000)),
    excesses=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    known=st.sampled_from([UNKNOWN, Pair(0, 30_000), Pair(300, 30_000), Pair(6000, 30_000)]),
)
def test_a_larger_excess_is_refuted_more_strongly(
    window: tuple[int, int, int, int], excesses: tuple[float, float], known: Pair
) -> None:
    """Log e is monotone in the excess, so one bound separates the excesses that are refuted from those that are not."""
    bound = bound_after((min(window[0], window[1]), window[1], min(window[2], window[3]), window[3]), known=known)
    low, high = sorted(excesses)
    assert bound.log_e(low) <= bound.log_e(high)
    for excess in excesses:
        if not math.isclose(excess, bound.upper(), abs_tol=1e-9):
            assert (bound.log_e(excess) >= math.log(100)) == (excess > bound.upper())


@pytest.mark.parametrize("known", [UNKNOWN, Pair(300, 30_000)])
def test_the_bound_is_the_smallest_refuted_excess(known: Pair) -> None:
    """Just above it the evidence suffices, just below it does not."""
    bound = bound_after((90, 9000, 10, 1000), known=known)
    assert bound.log_e(bound.upper() - 1e-9) < math.log(100) <= bound.log_e(bound.upper() + 1e-9)


@given(excess=st.floats(1e-4, 0.9), base=st.floats(1e-6, 0.9), weight=st.floats(0.001, 0.5))
def test_the_best_bet_has_the_largest_expected_growth(excess: float, base: float, weight: float) -> None:
    """No nearby theta has a larger expected log growth for this excess, base rate and canary share."""
    odds = weight / (1 - weight)

    def growth(theta: float) -> float:
        credit = -math.expm1(-theta)
        return credit * excess - theta * base + base / odds * math.log1p(credit * odds)

    best = best_theta(excess, base, weight)
    assert growth(best) >= max(growth(0.9 * best), growth(1.1 * best))


@pytest.mark.parametrize("failed", [0, 30, 300])
@pytest.mark.parametrize("excess", [0.02, 0.01, 0.005])
def test_known_failures_of_stable_reduce_the_requests_needed(failed: int, excess: float) -> None:
    """If canary and stable behave as stable did before, at least a twelfth of the requests is saved."""
    seen = (failed, 30_000, 0, 20)
    even, tuned = bound_after(seen), bound_after(seen, known=Pair(failed, 30_000))
    assert 0 < tuned.more_needed(excess, weight=0.25) <= 11 / 12 * even.more_needed(excess, weight=0.25)


def test_a_misleading_history_costs_little() -> None:
    """A quarter of the stake is on general bets: 2 % errors after a clean history cost at most a third more."""
    seen = (18, 900, 2, 100)
    even, misled = bound_after(seen), bound_after(seen, known=Pair(0, 30_000))
    assert 0 < misled.more_needed(0.02) <= 4 / 3 * even.more_needed(0.02)


def test_the_bound_is_100_percent_without_canary_requests() -> None:
    """With no requests, or with stable's only, any excess is possible."""
    assert [bound_after().upper(), bound_after((5, 900, 0, 0)).upper()] == [1.0, 1.0]


def test_small_windows_are_pooled_before_betting() -> None:
    """Forty windows of five and five requests give the bound of two windows of a hundred and a hundred."""
    pooled, whole = bound_after(*[(0, 5, 0, 5)] * 40), bound_after(*[(0, 100, 0, 100)] * 2)
    assert pooled.upper() == pytest.approx(whole.upper())


def test_windows_of_different_weight_are_not_pooled() -> None:
    """A canary share that rises by more than chance closes the pool, whatever bad events it holds."""
    apart = bound_after((3, 19, 0, 1), (0, 10, 0, 10), (0, 10, 0, 10))
    together = bound_after((3, 39, 0, 21))
    assert apart.log_e(0.5) != pytest.approx(together.log_e(0.5), abs=0.01)


@pytest.mark.parametrize(("excess", "requests"), [(0.1, 60), (0.02, 299), (0.01, 598), (0.005, 1196)])
def test_without_errors_the_forecast_is_six_over_the_excess(excess: float, requests: int) -> None:
    """The rule of thumb is N = 6 / excess, exactly 5.98, at 99 % confidence."""
    assert ExcessBound(0.01).more_needed(excess) == pytest.approx(requests, abs=0.7)


def test_the_forecast_is_zero_once_the_excess_is_refuted() -> None:
    """No more requests are needed for an excess above the bound."""
    assert bound_after((0, 9000, 0, 1000)).more_needed(0.006) == 0


def test_the_forecast_is_infinite_at_a_hopeless_base_rate() -> None:
    """If half of all requests are bad, an excess of 0.5 % can never be refuted."""
    assert bound_after((4500, 9000, 500, 1000)).more_needed(0.005) == math.inf


def test_dispersion_widens_the_bound() -> None:
    """Counts with twice the dispersion need twice as many requests."""
    clean, noisy = bound_after((0, 9000, 0, 1000)), bound_after((0, 9000, 0, 1000), phi=2)
    assert noisy.upper() == pytest.approx(2 * clean.upper(), rel=0.1)
