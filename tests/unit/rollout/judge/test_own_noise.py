"""Which of stable's noise matters between two healthy versions: clusters at every share, bursts by the share."""

import math

import numpy as np
import pytest

from rollout.judge import JudgeConfig, OwnNoise, Pair, Window, dispersion, own_noise
from rollout.judge.evidence import SignalEvidence
from rollout.judge.own_noise import INDEPENDENT
from rollout.signals.catalogue import catalogue

HALF_AN_HOUR = 360  # windows of 5 s
REQUESTS = 500  # 100 a second
ERRORS = catalogue().rules["errors"]


def history(bad: np.ndarray) -> list[Window]:
    """Stable's windows before a release."""
    return [Window(5.0 * i, 5.0, "errors", Pair(int(b), REQUESTS), Pair(0, 0)) for i, b in enumerate(bad, 1)]


def blips(seed: int) -> list[Window]:
    """Half of all requests fail for 3 s every five minutes, at times across two windows; otherwise 0.1 % fail."""
    rng = np.random.default_rng(seed)
    lasts_s = np.zeros(HALF_AN_HOUR)
    for start_s in np.arange(6) * 300 + rng.uniform(0, 290):
        first, into_s = divmod(start_s, 5)
        lasts_s[int(first)] += min(3, 5 - into_s)
        lasts_s[int(first) + 1] += max(0, into_s - 2)
    return history(rng.binomial(REQUESTS, 0.001 + 0.5 * lasts_s / 5))


@pytest.mark.parametrize("seed", range(12))
def test_short_bursts_add_no_noise_while_they_are_absent(seed: int) -> None:
    """Phi of the whole history is over 100, but outside the bursts two versions hardly differ."""
    whole, own = dispersion(blips(seed)), own_noise(blips(seed))
    assert whole > 100
    assert own.blips == pytest.approx(whole)
    assert own.clusters < 1.2
    assert own.of_bound(0.5, is_loud=False) < 1.2


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("base", [0.002, 0.02])
def test_clusters_are_noise_at_every_share(size: int, base: float) -> None:
    """A cluster goes to one version as a whole, however small its share; it must not be taken for a short burst."""
    rng = np.random.default_rng(2)
    own = [own_noise(history(size * rng.binomial(REQUESTS // size, base, HALF_AN_HOUR))) for _ in range(20)]
    for share in (0.01, 0.5):
        assert np.mean([one.of_bound(share, is_loud=False) for one in own]) > 0.85 * size
        assert np.mean([one.of_comparison(share) for one in own]) < 1.35 * size


def test_long_bursts_count_by_share_and_have_a_length() -> None:
    """A bad minute alternates with a good one: little noise at 1 % of traffic, half of it at 50 %."""
    rng = np.random.default_rng(3)
    own = own_noise(history(rng.binomial(REQUESTS, np.where(np.arange(HALF_AN_HOUR) // 12 % 2, 0.01, 0.03))))
    assert own.bursts > 20
    assert own.of_comparison(0.01) - own.clusters < 0.03 * own.bursts
    assert own.of_comparison(0.5) == pytest.approx((own.bursts + own.clusters) / 2)
    assert 30 <= own.burst_s <= 60


def test_frequent_failures_are_not_set_aside_as_short_bursts() -> None:
    """Short bursts are rare; what affects a fifth of the windows is how the version always is."""
    rng = np.random.default_rng(4)
    own = own_noise(history(rng.binomial(REQUESTS, np.where(np.arange(HALF_AN_HOUR) % 5, 0.001, 0.3))))
    assert own.clusters == own.blips > 50


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25, 0.5, 0.9])
def test_the_dispersion_of_a_comparison_is_the_ratio_of_its_variances(share: float) -> None:
    """Var of x (1-w) - y w, where each version's ratio is p (1 + B) with its own B, over its binomial variance."""
    requests, ratio, spread = 500.0, 0.01, 3.0  # spread: standard deviation of B

    def variance(expected: float) -> float:
        return expected + (expected * spread) ** 2

    canary, stable = requests * share * ratio, requests * (1 - share) * ratio
    of_contrast = (1 - share) ** 2 * variance(canary) + share**2 * variance(stable)
    of_independent = (1 - share) ** 2 * canary + share**2 * stable
    alone = variance(requests * ratio) / (requests * ratio)
    own = OwnNoise(bursts=alone, blips=alone)
    assert own.of_comparison(share) == pytest.approx(of_contrast / of_independent)


def test_golden_dispersions() -> None:
    """The history of the short bursts, with phi 151, at 1, 5, 25 and 50 %; and the guard's, at a limit of 20 %."""
    own = OwnNoise(clusters=1.0, bursts=1.0, blips=151.0, ratio=0.006)
    assert [own.of_comparison(share) for share in (0.01, 0.05, 0.25, 0.5)] == pytest.approx([3.97, 15.25, 57.25, 76.0])
    assert [own.of_bound(share, is_loud=False) for share in (0.01, 0.5)] == [1.0, 1.0]
    assert [own.of_bound(share, is_loud=True) for share in (0.01, 0.5)] == pytest.approx([6.94, 151.0])
    assert [own.of_one(share, 0.2) for share in (0.01, 0.5, 1.0)] == pytest.approx([1.045, 3.25, 5.5])


def test_clusters_alone_give_the_same_dispersion_everywhere() -> None:
    """So a release that an older version calibrated keeps its evidence."""
    own = OwnNoise.alike(4.0)
    assert {own.of_comparison(share) for share in (0.0, 0.01, 0.5)} == {4.0}
    assert {own.of_bound(0.25, is_loud=is_loud) for is_loud in (False, True)} == {4.0}
    assert {own.of_one(share, 0.2) for share in (0.01, 1.0)} == {4.0}


@pytest.mark.parametrize("bad", [np.zeros(HALF_AN_HOUR), np.full(3, 5)], ids=["no errors", "three windows"])
def test_too_little_history_counts_as_independent(bad: np.ndarray) -> None:
    """This is an assumption, not a finding."""
    assert own_noise(history(bad)) == INDEPENDENT
    assert own_noise([]) == INDEPENDENT


def test_the_cap_of_one_window_is_spread_over_a_burst() -> None:
    """Six windows of one burst together multiply the evidence by at most ten, as one window of other harm does."""
    window = Window(5.0, 5.0, "errors", Pair(0, 10_000), Pair(500, 500))
    e = []
    for burst_s in (0.0, 30.0):
        evidence = SignalEvidence("errors", ERRORS, JudgeConfig(), noise=OwnNoise(burst_s=burst_s), known=Pair(0, 0))
        for stream, stable, canary in evidence.observe(window):
            stream.observe(stable, canary)
        e.append(math.exp(evidence.log_e))
    assert 5 < e[0] < 10
    assert 1 < e[1] < 10 ** (1 / 6)
