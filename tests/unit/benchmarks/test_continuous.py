"""Simulated numbers have the stated distribution, and a few releases keep the promises."""

import math
from itertools import pairwise

import numpy as np
import pytest

from benchmarks.proofs.continuous import USUAL, Case, found, kinds
from rollout.signals.options import LATENCY_STEPS_MS


def mean_ms(kind: str, share: float) -> float:
    """The smallest bound under which this share of answers lies."""
    below = np.cumsum(kinds()[kind].shares(1.0))
    return float(LATENCY_STEPS_MS[int(np.searchsorted(below, share))])


def test_the_published_quantiles_are_met() -> None:
    """Half within 20 ms, 95 % within 100 ms, 99 % within 200 ms, up to the next bound."""
    leaf = "a leaf of Dean & Barroso"
    assert [mean_ms(leaf, share) for share in (0.499, 0.949, 0.989)] == [20, 100, 200]


@pytest.mark.parametrize("name", kinds())
def test_a_factor_raises_every_mean(name: str) -> None:
    """Shares add up to 1. A canary that is slower by a quarter has a mean that is larger by about as much."""
    kind = kinds()[name]
    usual, slower = kind.shares(1.0), kind.shares(1.25)
    assert usual.sum() == pytest.approx(1)
    assert slower.sum() == pytest.approx(1)
    assert kind.values @ (slower - usual) == pytest.approx(kind.tolerance(1.25), rel=0.15)


def test_the_finer_bounds_have_equal_ratios() -> None:
    """They go from 1 ms to 10 s by 12 %, rounded to two digits."""
    assert (LATENCY_STEPS_MS[0], LATENCY_STEPS_MS[-1]) == (1, 10_000)
    ratios = [high / low for low, high in pairwise(LATENCY_STEPS_MS)]
    assert 1.07 < min(ratios) <= max(ratios) < 1.19


def test_a_few_releases_behave_as_the_page_says() -> None:
    """Identical versions are not called worse; a canary slower by a quarter is noticed within two minutes."""
    assert all(math.isinf(found(Case(USUAL), seed).noticed_s) for seed in range(5))
    assert all(found(Case(USUAL, 1.25, 1.05), seed).noticed_s <= 120 for seed in range(5))
