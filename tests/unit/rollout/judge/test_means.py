"""Comparing means: golden numbers, validity by enumeration, and impossible sums."""

import itertools
import math
from collections.abc import Sequence

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.judge.means import EFFECTS, Bet, Forecast, LeastDifference, bets, impossible
from rollout.judge.types import Numbers

BETWEEN = (0.0, 1.0)


def sums(numbers: Sequence[float]) -> Numbers:
    return Numbers(len(numbers), math.fsum(numbers), math.fsum(x * x for x in numbers))


@pytest.mark.parametrize(
    ("effect", "reach", "cost"),
    [(0.01, 0.1, 0.000348371052853277), (0.1, 1.0, 0.0397354414138508), (1.0, 4.0, 1.37704756333716)],
)
def test_golden_numbers(effect: float, reach: float, cost: float) -> None:
    """Two numbers on canary and four on stable, by the formula with 50 digits; the last bet is cut to its maximum."""
    stable, canary = sums([0.1, 0.2, 0.3, 0.4]), sums([0.5, 0.9])
    made = bets(stable, canary, means=(0.3, 0.4), deviation=2 / 15, between=BETWEEN, effects=[effect])
    assert made == [Bet(pytest.approx(reach), pytest.approx(cost))]
    with mpmath.workdps(50):
        harmonic = mpmath.mpf(4) / 3
        exact = min(harmonic * mpmath.mpf(effect) * 15 / 2, mpmath.mpf("0.8") * 4 / mpmath.mpf("0.7"), 4)

        def psi(stake: mpmath.mpf, room: mpmath.mpf) -> mpmath.mpf:
            return (-mpmath.log(1 - stake * room) - stake * room) / room**2

        about_s = sum((mpmath.mpf(x) / 10 - mpmath.mpf("0.3")) ** 2 for x in (1, 2, 3, 4))
        about_c = sum((mpmath.mpf(x) / 10 - mpmath.mpf("0.4")) ** 2 for x in (5, 9))
        exact_cost = psi(exact / 4, mpmath.mpf("0.7")) * about_s + psi(exact / 2, mpmath.mpf("0.4")) * about_c
        assert (made[0].reach, made[0].cost) == (pytest.approx(float(exact)), pytest.approx(float(exact_cost)))


def test_the_expected_e_value_of_every_bet_is_at_most_one_whatever_the_forecast() -> None:
    """All outcomes of a few three-valued numbers are enumerated, with the means at the edge of the null hypothesis."""
    worlds = [
        ((0.0, 0.5, 1.0), (0.2, 0.3, 0.5), (0.1, 0.5, 0.4)),
        ((0.0, 0.1, 1.0), (0.9, 0.0, 0.1), (0.0, 1.0, 0.0)),
        ((0.0, 1.0, 0.5), (0.5, 0.5, 0.0), (0.0, 0.0, 1.0)),
        ((0.0, 1.0, 0.3), (0.99, 0.01, 0.0), (0.99, 0.01, 0.0)),
    ]
    for values, canary_chances, stable_chances in worlds:
        apart = np.dot(values, canary_chances) - np.dot(values, stable_chances)
        for n_c, n_s in ((1, 1), (2, 3), (3, 1), (1, 4)):
            for means, deviation in itertools.product(((0.5, 0.5), (0, 1), (1, 0), (0.1, 0.1)), (0.0, 0.01, 0.5)):
                mean_e = np.zeros(len(EFFECTS))
                for xs in itertools.product(range(3), repeat=n_c):
                    for ys in itertools.product(range(3), repeat=n_s):
                        chance = math.prod(canary_chances[x] for x in xs) * math.prod(stable_chances[y] for y in ys)
                        stable, canary = sums([values[y] for y in ys]), sums([values[x] for x in xs])
                        made = bets(stable, canary, means=means, deviation=deviation, between=BETWEEN)
                        seen = canary.mean - stable.mean
                        mean_e += chance * np.exp([bet.log_e(seen, apart) for bet in made])
                assert (mean_e <= 1 + 1e-9).all()


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.floats(0, 1),
)
def test_an_e_value_never_exceeds_its_product_bound(
    stable: list[float], canary: list[float], means: tuple[float, float], deviation: float
) -> None:
    """Each number multiplies the e-value by at most 1 + stake x (number - centre); validity rests on this."""
    counted = sums(stable), sums(canary)
    for bet in bets(*counted, means=means, deviation=deviation, between=BETWEEN):
        up, down = bet.reach / len(canary), bet.reach / len(stable)
        bound = sum(math.log1p(up * (x - means[1])) for x in canary)
        bound += sum(math.log1p(down * (means[0] - y)) for y in stable)
        bound -= bet.reach * (means[0] - means[1])  # the difference of the centres is subtracted again
        assert bet.log_e(counted[1].mean - counted[0].mean, 0.0) <= bound + 1e-9


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_a_large_offset_does_not_invalidate_the_evidence(offset: float) -> None:
    """Sums of squares lose digits if numbers are large and alike; this only weakens the evidence."""
    rng = np.random.default_rng(5)
    stable, canary = rng.random(400), rng.random(50)
    plain = bets(sums(stable), sums(canary), means=(0.5, 0.5), deviation=0.3, between=BETWEEN)
    moved = bets(
        sums(stable + offset),
        sums(canary + offset),
        means=(0.5 + offset, 0.5 + offset),
        deviation=0.3,
        between=(offset, 1 + offset),
    )
    for one, other in zip(plain, moved, strict=True):
        assert other.cost >= one.cost * (1 - 1e-9)


def test_the_forecast_uses_only_past_windows() -> None:
    """At first nothing is known; then it is the mean of each side, with less weight on older windows."""
    forecast = Forecast(BETWEEN)
    assert not forecast.is_known
    for _ in range(50):
        forecast.add(sums([0.2, 0.4] * 20), sums([0.6, 0.8] * 20))
    assert forecast.means == (pytest.approx(0.3, abs=0.01), pytest.approx(0.7, abs=0.01))
    assert forecast.deviation == pytest.approx(0.1, abs=0.001)
    for _ in range(50):
        forecast.add(sums([0.9] * 40), sums([0.9] * 40))
    assert forecast.means == (pytest.approx(0.9, abs=0.01), pytest.approx(0.9, abs=0.01))


def test_the_limit_approaches_the_true_difference_from_below() -> None:
    """The difference is 0.2, seen in 40 windows."""
    rng, limit, forecast = np.random.default_rng(8), LeastDifference(0.01, BETWEEN), Forecast(BETWEEN)
    assert limit.bound() == -1
    assert limit.more_needed(0.1) == math.inf
    for _ in range(40):
        stable, canary = sums(rng.beta(4, 6, 200)), sums(rng.beta(6, 4, 50))
        if forecast.is_known:
            made = bets(stable, canary, means=forecast.means, deviation=forecast.deviation, between=BETWEEN)
            limit.observe(made, canary.mean - stable.mean, numbers=canary.total)
        forecast.add(stable, canary)
        assert limit.bound() < 0.2
    assert limit.bound() > 0.17
    assert limit.log_e(limit.bound()) == pytest.approx(math.log(100))
    assert limit.more_needed(0.1) == 0


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        (Numbers(-1, 0.0, 0.0), "-1 events"),
        (Numbers(2, math.nan, 1.0), "not finite"),
        (Numbers(2, 1.0, math.inf), "not finite"),
        (Numbers(2, 1e300, math.inf), "not finite"),
        (Numbers(2, 2.1, 2.3), "a sum of 2.1"),
        (Numbers(2, -0.1, 0.5), "a sum of -0.1"),
        (Numbers(2, 1.0, 0.4), "a sum of squares of 0.4"),
        (Numbers(2, 1.0, 1.1), "a sum of squares of 1.1"),
        (Numbers(0, 0.0, 0.1), "a sum of squares"),
        (Numbers(0, 0.5, 0.0), "a sum of 0.5"),
    ],
)
def test_impossible_sums_are_named(numbers: Numbers, reason: str) -> None:
    """The numbers are between 0 and 1. A clip that changed between windows is found this way."""
    assert reason in (impossible(numbers, BETWEEN) or "")


@given(st.lists(st.floats(-1e6, 1e6), max_size=50))
def test_sums_of_numbers_within_the_bounds_are_possible(numbers: list[float]) -> None:
    """Rounding makes none of them impossible."""
    assert impossible(sums(numbers), (-1e6, 1e6)) is None
