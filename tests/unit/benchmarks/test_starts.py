"""Priors over the window in which harm begins: the bets equal the judge's; a prior that ends finds late harm late."""

import math

import numpy as np
import pytest

from benchmarks.proofs.starts import OURS, PRIORS, Case, Prior, capped_e_values, failed_after_s
from rollout.judge import JudgeConfig, Pair
from rollout.judge.fail import Stream
from rollout.signals.catalogue import catalogue


def test_the_bets_of_many_releases_equal_the_judges() -> None:
    """One release with two changes of weight is compared window by window with a stream of the judge."""
    rng, changes = np.random.default_rng(3), (4, 9)
    stable, canary = rng.poisson(90, 40), rng.poisson(10, 40)
    stable_bad, canary_bad = rng.binomial(stable, 0.01), rng.binomial(canary, 0.1)
    e_values = capped_e_values(stable_bad, stable, canary_bad, canary)
    shares = OURS.shares(40, changes)
    stream, bets = Stream(catalogue().rules["errors"], JudgeConfig()), np.zeros(e_values.shape[1])
    for i in range(40):
        if i in changes:
            stream.weight_changed()
        stream.observe(Pair(int(stable_bad[i]), int(stable[i])), Pair(int(canary_bad[i]), int(canary[i])))
        bets = (bets + shares[i]) * e_values[i]
        assert stream.log_e == pytest.approx(math.log(bets.mean() + 1 - shares[: i + 1].sum()), abs=1e-9)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.name)
def test_a_prior_sums_to_at_most_one(prior: Prior) -> None:
    """It is summed over a day with forty changes of weight."""
    shares = prior.shares(17_280, tuple(range(100, 4_100, 100)))
    assert shares.min() >= 0
    assert 0.5 < shares.sum() <= 1 + 1e-12


def test_a_prior_that_has_ended_finds_late_harm_late() -> None:
    """Half of all requests fail after three hours; Kanaria needs less than a third of the time."""
    an_hour, kanaria, _ = np.median(failed_after_s(Case("", 2160), 0.5, PRIORS, 20), axis=1)
    assert kanaria < an_hour / 3
