"""Rows of one request are alike. One event per request keeps the promised error rate; one per row does not."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binomtest

from rollout.judge import JudgeConfig, Pair, Verdict, Window
from rollout.judge.judge import Judge
from rollout.signals.catalogue import catalogue

ROWS = 200
WINDOW_S = 5.0
Count = Callable[[np.random.Generator, np.ndarray, int], Pair]


def by_row(_: np.random.Generator, bad_rows: np.ndarray, rows: int) -> Pair:
    """Counts every row of every request."""
    return Pair(int(bad_rows.sum()), rows * len(bad_rows))


def by_request(rng: np.random.Generator, bad_rows: np.ndarray, rows: int) -> Pair:
    """Counts one random row of each request, as the service does."""
    return Pair(int((rng.integers(rows, size=len(bad_rows)) < bad_rows).sum()), len(bad_rows))


def judge_of(signal: str) -> Judge:
    return Judge(JudgeConfig(rules={signal: catalogue().rules[signal]}))


def found_after_s(
    rng: np.random.Generator, count: Count, *, rows: int, wholly: float, windows: int, requests: float = 10
) -> float:
    """Seconds until shadow answers are found to differ; a share `wholly` of the requests differs in every row."""
    judge = judge_of("disagreement")
    for i in range(1, windows + 1):
        differ = rng.random(rng.poisson(requests)) < wholly
        canary = count(rng, np.where(differ, rows, 0), rows)
        judge.observe([Window(WINDOW_S * i, WINDOW_S, "disagreement", Pair(0, canary.total), canary)])
        if judge.judgement(next_weight=None).verdict is Verdict.FAIL:
            return WINDOW_S * i
    return math.inf


def is_failed_by_labels(rng: np.random.Generator, count: Count) -> bool:
    """Whether an equal canary FAILs when 8 % of the requests of both versions are wrong in all rows."""
    judge = judge_of("wrong_label")
    for i in range(1, 61):
        stable, canary = (count(rng, np.where(rng.random(rng.poisson(10)) < 0.08, ROWS, 0), ROWS) for _ in range(2))
        judge.observe([Window(WINDOW_S * i, WINDOW_S, "wrong_label", stable, canary)])
    return judge.judgement(next_weight=None).verdict is Verdict.FAIL


@pytest.mark.exhaustive
def test_requests_that_differ_in_every_row_fail_with_probability_at_most_alpha() -> None:
    """8 % of the requests differ in all of their 200 rows; 10 % are allowed. Counted by row, several in 100 FAIL."""
    runs = 400
    failed = {
        count: sum(
            found_after_s(rng, count, rows=ROWS, wholly=0.08, windows=60) < math.inf
            for rng in np.random.default_rng(7).spawn(runs)
        )
        for count in (by_row, by_request)
    }
    assert binomtest(failed[by_request], runs, 0.01, alternative="greater").pvalue > 0.001
    assert binomtest(failed[by_row], runs, 0.01, alternative="greater").pvalue < 0.001


@pytest.mark.exhaustive
def test_an_equal_canary_with_wholly_wrong_requests_fails_with_probability_at_most_alpha() -> None:
    """Counted by row most would FAIL, because one more such request in a window is 200 bad events."""
    runs = 100
    failed = {
        count: sum(is_failed_by_labels(rng, count) for rng in np.random.default_rng(8).spawn(runs))
        for count in (by_row, by_request)
    }
    assert binomtest(failed[by_request], runs, 0.01, alternative="greater").pvalue > 0.001
    assert binomtest(failed[by_row], runs, 0.01, alternative="greater").pvalue < 0.001


def test_requests_of_32_rows_are_found_as_soon_as_requests_of_one() -> None:
    """At three times the allowed share and 2 requests a second, nine of ten releases FAIL within a minute."""
    for rows in (1, 32):
        found = [
            found_after_s(rng, by_request, rows=rows, wholly=0.3, windows=60)
            for rng in np.random.default_rng(9).spawn(60)
        ]
        assert float(np.quantile(found, 0.9)) <= 60
