"""The promised error rates and detection times, on simulated releases with fixed seeds.

These are small versions of the benchmark: each bound is an exact binomial test, or leaves room for sampling noise.
"""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from rollout.judge import JudgeConfig, Pair, SignalRule, Verdict, Window, own_noise
from rollout.judge.judge import Judge
from rollout.judge.kernels import rare
from rollout.signals.catalogue import catalogue

RULES = catalogue().rules

WINDOW_S = 5
RAMP = (0.01, 0.05, 0.25, 0.5)
PLAIN = JudgeConfig(
    window_cap=1e9,
    rules={"errors": SignalRule(kernel="rare", weight=1, tolerance=1, margin=0)},
)


def windows(stable: np.ndarray, n_s: np.ndarray, canary: np.ndarray, n_c: np.ndarray) -> list[Window]:
    counts = zip(stable.tolist(), n_s.tolist(), canary.tolist(), n_c.tolist(), strict=True)
    return [
        Window(WINDOW_S * i, WINDOW_S, "errors", Pair(y, all_s), Pair(x, all_c))
        for i, (y, all_s, x, all_c) in enumerate(counts, 1)
    ]


def test_one_client_with_only_invalid_requests_fails_no_harmless_canary() -> None:
    """Its bursts are as large as all other traffic; each request is sent three times on average, at every weight."""
    rng, runs, failed = np.random.default_rng(7), 150, 0
    weights = np.repeat(RAMP, 30)
    for _ in range(runs):
        right, burst = rng.poisson(100, weights.size), rng.random(weights.size) < 0.2
        wrong = rng.poisson(2, weights.size) + burst * rng.poisson(100, weights.size) * rng.geometric(
            1 / 3, weights.size
        )
        n_c = rng.binomial(right + wrong, weights)
        x = rng.hypergeometric(wrong, right, n_c)
        judge = Judge(JudgeConfig(rules={"rejected": RULES["rejected"]}))
        counts = zip((wrong - x).tolist(), (right + wrong - n_c).tolist(), x.tolist(), n_c.tolist(), strict=True)
        judge.observe(
            Window(WINDOW_S * i, WINDOW_S, "rejected", Pair(y, all_s), Pair(bad, all_c))
            for i, (y, all_s, bad, all_c) in enumerate(counts, 1)
        )
        failed += judge.judgement(next_weight=None).verdict is Verdict.FAIL
    assert binomtest(failed, runs, 0.01, alternative="greater").pvalue > 0.001


def detection_s(rng: np.random.Generator, ratio: float, *, healthy: int = 0) -> float:
    """Seconds from the first harm to FAIL; 2 of 20 requests a second go to the canary, and 1 % fail on stable."""
    harmful = 400
    n_c, n_s = rng.poisson(2 * WINDOW_S, healthy + harmful), rng.poisson(18 * WINDOW_S, healthy + harmful)
    p_c = np.where(np.arange(healthy + harmful) < healthy, 0.01, 0.01 * ratio)
    judge = Judge(JudgeConfig(rules=RULES))
    for i, window in enumerate(windows(rng.binomial(n_s, 0.01), n_s, rng.binomial(n_c, p_c), n_c), 1):
        judge.observe([window])
        if judge.judgement(next_weight=None).verdict is Verdict.FAIL:
            return WINDOW_S * (i - healthy)
    return math.inf


@pytest.mark.parametrize("config", [PLAIN, JudgeConfig(rules=RULES)], ids=["plain", "default"])
def test_a_healthy_canary_fails_with_probability_at_most_alpha(config: JudgeConfig) -> None:
    """A ramp of a diurnal base rate from 0.2 to 5 %, judged at every window."""
    rng, runs, failed = np.random.default_rng(7), 150, 0
    base = 0.026 - 0.024 * np.cos(np.linspace(0, 2 * np.pi, 240))
    weight = np.repeat(RAMP, 60)
    for _ in range(runs):
        n_c, n_s = rng.poisson(300 * weight), rng.poisson(300 * (1 - weight))
        judge = Judge(config)
        judge.observe(windows(rng.binomial(n_s, base), n_s, rng.binomial(n_c, base), n_c))
        failed += judge.judgement(next_weight=None).verdict is Verdict.FAIL
    assert binomtest(failed, runs, 0.01, alternative="greater").pvalue > 0.001


def test_calibrated_noise_prevents_false_fails_when_versions_have_independent_bursts() -> None:
    """Bursts hit one version at a time (correlation 0.05): many false FAILs without stable's noise, none with it."""
    rng, runs = np.random.default_rng(8), 60
    weight, failed = np.repeat(RAMP, 60), {False: 0, True: 0}

    def bursty(totals: np.ndarray) -> np.ndarray:
        return rng.binomial(totals, rng.beta(0.01 * 19, 0.99 * 19, totals.shape))

    for _ in range(runs):
        n_c, n_s, n_h = rng.poisson(500 * weight), rng.poisson(500 * (1 - weight)), rng.poisson(500, 360)
        none = np.zeros_like(n_h)
        noise = own_noise(windows(bursty(n_h), n_h, none, none))
        observed = windows(bursty(n_s), n_s, bursty(n_c), n_c)
        for is_tempered in failed:
            judge = Judge(JudgeConfig(rules=RULES), {"errors": noise} if is_tempered else {})
            judge.observe(observed)
            failed[is_tempered] += judge.judgement(next_weight=None).verdict is Verdict.FAIL
    assert failed[True] == 0
    assert binomtest(failed[False], runs, 0.01, alternative="greater").pvalue < 0.001


@pytest.mark.parametrize(
    ("ratio", "median_s", "p90_s"), [(5, 130, 260), (10, 45, 80), (50, 15, 15)], ids=["x5", "x10", "half-failing"]
)
def test_harm_is_found_within_the_promised_time(ratio: float, median_s: float, p90_s: float) -> None:
    """At 2 canary requests a second; the margin of a fifth over measured times allows for the noise of 120 runs."""
    rng = np.random.default_rng(9)
    found = np.percentile([detection_s(rng, ratio) for _ in range(120)], [50, 90])
    assert (found <= 1.2 * np.array([median_s, p90_s])).all()


SHADOW = JudgeConfig(rules={"disagreement": RULES["disagreement"]})


def shadow_windows(rng: np.random.Generator, share: float, *, rows: int, count: int) -> list[Window]:
    """About `rows` mirrored rows a window; the canary answers a share of them differently from stable."""
    totals = rng.poisson(rows, count)
    counts = zip(rng.binomial(totals, share).tolist(), totals.tolist(), strict=True)
    return [
        Window(WINDOW_S * i, WINDOW_S, "disagreement", Pair(0, total), Pair(different, total))
        for i, (different, total) in enumerate(counts, 1)
    ]


@pytest.mark.parametrize("rows", [5, 100])
def test_a_shadow_at_its_limit_fails_with_probability_at_most_alpha(rows: int) -> None:
    """An hour of windows in which exactly the allowed 10 % of answers differ."""
    rng, runs, failed = np.random.default_rng(14), 150, 0
    for _ in range(runs):
        judge = Judge(SHADOW)
        judge.observe(shadow_windows(rng, 0.1, rows=rows, count=720))
        failed += judge.judgement(next_weight=None).verdict is Verdict.FAIL
    assert binomtest(failed, runs, 0.01, alternative="greater").pvalue > 0.001


@pytest.mark.parametrize(("share", "median_rows"), [(0.2, 140), (0.3, 50), (0.9, 15)])
def test_a_shadow_over_its_limit_is_found_within_the_promised_rows(share: float, median_rows: int) -> None:
    """At one mirrored row a second; the margin of a fourth over measured medians allows for the noise of 100 runs."""
    rng, found = np.random.default_rng(15), []
    for _ in range(100):
        judge, seen = Judge(SHADOW), 0
        for window in shadow_windows(rng, share, rows=5, count=400):
            judge.observe([window])
            seen += window.canary.total
            if judge.judgement(next_weight=None).verdict is Verdict.FAIL:
                found.append(seen)
                break
    assert len(found) == 100
    assert np.median(found) <= 1.25 * median_rows


def test_harm_that_begins_after_half_an_hour_is_found_within_the_promised_time() -> None:
    """Ten times the errors after a healthy half hour are found after 85 s in the median."""
    rng = np.random.default_rng(10)
    assert np.median([detection_s(rng, 10, healthy=360) for _ in range(25)]) <= 1.3 * 75


def test_the_mixture_test_is_close_to_the_optimal_expected_time() -> None:
    """The mixture over odds ratios, without tolerance, cap and start prior, needs at most 1.3 times the expected time
    of a test that knows the harm (Wald 1945).
    """
    rng, p_s, p_c, n_s, n_c = np.random.default_rng(11), 0.01, 0.05, 90, 10
    share = n_c * p_c / (n_c * p_c + n_s * p_s)
    gain = (n_c * p_c + n_s * p_s) * (
        share * math.log(share / (n_c / 100)) + (1 - share) * math.log((1 - share) / (n_s / 100))
    )
    limit = math.log(100) / gain
    found = []
    for _ in range(150):
        totals = rng.poisson(n_s, 200), rng.poisson(n_c, 200)
        observed = windows(rng.binomial(totals[0], p_s), totals[0], rng.binomial(totals[1], p_c), totals[1])
        log_e = np.cumsum([rare(one.stable, one.canary, odds_ratios=PLAIN.odds_ratios) for one in observed], axis=0)
        enough = np.exp(log_e).mean(axis=1) >= 1 / PLAIN.alpha
        if enough.any():
            found.append(int(enough.argmax()) + 1)
    assert len(found) == 150
    assert np.median(found) <= 1.3 * limit


def test_a_canary_beyond_the_risk_budget_is_not_promoted() -> None:
    """1 % of its requests are harmed where the budget is 0.5 %: no step to 100 % in 40 releases."""
    rng, promoted = np.random.default_rng(12), 0
    for _ in range(40):
        weight, steps, i = 0.05, [0.25, 0.5, 1.0], 0
        judge = Judge(JudgeConfig(rules=RULES))
        while steps and i < 120:
            i += 1
            n_c, n_s = rng.poisson(500 * weight), rng.poisson(500 * (1 - weight))
            counts = Pair(int(rng.binomial(n_s, 0.002)), n_s), Pair(int(rng.binomial(n_c, 0.012)), n_c)
            judge.observe([Window(WINDOW_S * i, WINDOW_S, "errors", *counts)])
            verdict = judge.judgement(next_weight=steps[0]).verdict
            if verdict is Verdict.FAIL:
                break
            if verdict is Verdict.PASS:
                weight = steps.pop(0)
        promoted += not steps
    assert binomtest(promoted, 40, 0.01, alternative="greater").pvalue > 0.001


def test_a_healthy_canary_reaches_all_traffic_within_the_promised_time() -> None:
    """20 requests a second, 0.1 % errors, steps 1, 5, 25, 50, 100, at least two windows a step: median 732 s."""
    rng, took = np.random.default_rng(13), []
    for _ in range(15):
        weight, steps, i, in_step = 0.01, [0.05, 0.25, 0.5, 1.0], 0, 0
        judge = Judge(JudgeConfig(rules=RULES))
        while steps:
            i, in_step = i + 1, in_step + 1
            n_c, n_s = rng.poisson(100 * weight), rng.poisson(100 * (1 - weight))
            counts = Pair(int(rng.binomial(n_s, 0.001)), n_s), Pair(int(rng.binomial(n_c, 0.001)), n_c)
            judge.observe([Window(WINDOW_S * i, WINDOW_S, "errors", *counts)])
            if judge.judgement(next_weight=steps[0]).verdict is Verdict.PASS and in_step >= 2:
                weight, in_step = steps.pop(0), 0
        took.append(WINDOW_S * i)
    assert np.median(took) <= 1.2 * 732
