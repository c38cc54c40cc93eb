"""Dispersion measured on stable: 1 for independent requests, large for clusters, unaffected by slow drift."""

import numpy as np
import pytest

from rollout.judge import Pair, Window, dispersion, user_dispersion

HALF_AN_HOUR = 360  # windows of 5 s
REQUESTS = 100


def history(bad: np.ndarray) -> list[Window]:
    """Stable's windows before a release."""
    return [Window(5.0 * i, 5.0, "errors", Pair(int(b), REQUESTS), Pair(0, 0)) for i, b in enumerate(bad, 1)]


def test_independent_requests_have_a_dispersion_near_one() -> None:
    """With independent counts, the estimate slows the judge by less than a fifth on average."""
    rng = np.random.default_rng(1)
    phi = [dispersion(history(rng.binomial(REQUESTS, 0.02, HALF_AN_HOUR))) for _ in range(40)]
    assert min(phi) >= 1
    assert np.mean(phi) < 1.2


@pytest.mark.parametrize("size", [2, 4])
def test_dispersion_of_clusters_is_their_size(size: int) -> None:
    """Errors in groups of `size` have about `size` times the variance."""
    rng = np.random.default_rng(2)
    phi = [dispersion(history(size * rng.binomial(REQUESTS // size, 0.02, HALF_AN_HOUR))) for _ in range(20)]
    assert size * 0.85 < np.mean(phi) < size * 1.35


def test_bursts_longer_than_a_window_are_found_between_longer_blocks() -> None:
    """A bad minute alternates with a good one: neighbouring windows agree, neighbouring minutes do not."""
    rng = np.random.default_rng(3)
    ratio = np.where(np.arange(HALF_AN_HOUR) // 12 % 2, 0.01, 0.05)
    assert dispersion(history(rng.binomial(REQUESTS, ratio))) > 10


def test_a_slowly_drifting_base_rate_is_not_dispersion() -> None:
    """The error ratio rises tenfold over half an hour; neighbouring windows hardly differ."""
    rng = np.random.default_rng(4)
    assert dispersion(history(rng.binomial(REQUESTS, np.linspace(0.005, 0.05, HALF_AN_HOUR)))) < 1.5


def test_too_little_history_counts_as_independent() -> None:
    """No window, three bad events, or a dozen windows are too little to estimate from, so 1 is assumed."""
    few = np.zeros(HALF_AN_HOUR, dtype=int)
    few[:3] = 1
    assert [dispersion([]), dispersion(history(few)), dispersion(history(np.full(12, 5)))] == [1.0, 1.0, 1.0]


def test_windows_without_traffic_are_skipped() -> None:
    """An idle night in the history neither divides by zero nor lowers the estimate."""
    rng = np.random.default_rng(5)
    busy = history(size_4 := 4 * rng.binomial(REQUESTS // 4, 0.02, HALF_AN_HOUR))
    idle = [Window(1e4 + i, 5.0, "errors", Pair(0, 0), Pair(0, 0)) for i in range(100)]
    assert dispersion([*busy, *idle]) == dispersion(history(size_4))


def test_repeated_failures_of_one_user_raise_the_user_dispersion() -> None:
    """One user with nine failures and one with one give 82 / 10."""
    assert user_dispersion([9, 1, 0]) == pytest.approx(8.2)


def test_users_who_fail_once_each_have_a_dispersion_of_one() -> None:
    """So does a history without failures."""
    assert [user_dispersion([1, 1, 0, 1]), user_dispersion([])] == [1.0, 1.0]
