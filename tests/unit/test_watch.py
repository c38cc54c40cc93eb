"""A canary that has all the traffic, judged by what stable was known to fail."""

from collections.abc import Iterator

import numpy as np
import pytest

from rollout.judge import Judge, Pair, Verdict, Window
from rollout.spec import RolloutSpec
from rollout.state import Phase, Release
from rollout.watch import harmless_ratio, watch_judge, watched

REQUESTS = 500  # in a window of 5 s
WATCH = 180  # windows


def release(known: Pair, *, phi: float = 1.0) -> Release:
    return Release(
        number=1,
        canary="m:v2",
        stable="m:v1",
        spec=RolloutSpec(),
        requested_s=0.0,
        by="ann",
        phase=Phase.WATCHING,
        weight_percent=100,
        phi={"errors": phi},
        stable_errors=known,
    )


def judge_of(known: Pair, *, phi: float = 1.0) -> Judge:
    judge = watch_judge(release(known, phi=phi))
    assert judge
    return judge


def windows(error_ratio: float, seed: int, *, cluster: int = 1) -> Iterator[Window]:
    rng = np.random.default_rng(seed)
    for number in range(WATCH):
        bad = cluster * int(rng.binomial(REQUESTS // cluster, error_ratio))
        yield Window(5.0 * number, 5.0, "errors", Pair(0, 0), Pair(bad, REQUESTS))


def failed_after(judge: Judge, seen: Iterator[Window]) -> int | None:
    """Windows until FAIL."""
    for number, window in enumerate(seen, 1):
        judge.observe(watched([window]))
        if judge.judgement(next_weight=None).verdict is Verdict.FAIL:
            return number
    return None


@pytest.mark.parametrize("known", [Pair(0, 20_000), Pair(1000, 200_000), Pair(10_000, 200_000)])
def test_as_good_as_stable_is_never_taken_back(known: Pair) -> None:
    """Errors of 0, 0.5 and 5 %: thirty watches each."""
    ratio = known.bad / known.total
    assert {failed_after(judge_of(known), windows(ratio, seed)) for seed in range(30)} == {None}


def test_ten_times_the_errors_are_taken_back_within_half_a_minute() -> None:
    """From 0.5 to 5 %, at 100 requests a second."""
    found = [failed_after(judge_of(Pair(1000, 200_000)), windows(0.05, seed)) for seed in range(30)]
    assert all(number is not None and number <= 6 for number in found)


def test_what_lies_just_within_the_limit_is_rarely_taken_back() -> None:
    """The test's own promise: at most 1 % of the versions that fail as often as is harmless."""
    limit = harmless_ratio(release(Pair(1000, 200_000)))
    found = [failed_after(judge_of(Pair(1000, 200_000)), windows(limit, seed)) for seed in range(200)]
    assert sum(number is not None for number in found) <= 6


def test_the_less_is_known_of_stable_the_more_is_harmless() -> None:
    """No errors in 60 requests say little, in 60,000 much; of no request at all nothing follows."""
    few, many = (harmless_ratio(release(Pair(0, total))) for total in (60, 60_000))
    assert few > 0.2
    assert many < 0.006
    assert watch_judge(release(Pair(0, 0))) is None


def test_clusters_of_failures_need_more_of_them() -> None:
    """Stable's own retries in clusters of five are no harm of the canary."""
    known = Pair(2000, 200_000)
    found = {failed_after(judge_of(known, phi=5.0), windows(0.02, seed, cluster=5)) for seed in range(30)}
    assert found == {None}
