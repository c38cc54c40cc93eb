"""A canary that has all the traffic, judged by the failures before."""

from collections.abc import Iterator

import numpy as np
import pytest

from rollout.control.after_promotion import RecentFailures, Watch
from rollout.judge import Judgement, Pair, Verdict, Window
from rollout.ledger.state import Phase, Release
from rollout.spec import RolloutSpec

REQUESTS = 500  # in a window of 5 s
WATCH = 180  # windows
NOTHING = Pair(0, 0)


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


def watch_of(known: Pair, *, phi: float = 1.0) -> Watch:
    return Watch.of(release(known, phi=phi))


def windows(error_ratio: float | np.ndarray, seed: int, *, cluster: int = 1) -> Iterator[Window]:
    rng = np.random.default_rng(seed)
    for number, ratio in enumerate(np.broadcast_to(error_ratio, WATCH), 1):
        bad = cluster * int(rng.binomial(REQUESTS // cluster, ratio))
        yield Window(5.0 * number, 5.0, "errors", Pair(0, 0), Pair(bad, REQUESTS))


def failed(watch: Watch, seen: Iterator[Window]) -> Judgement | None:
    """The judgement at the first FAIL; None for never."""
    recent = RecentFailures()
    for window in seen:
        watch.observe([window], recent)
        recent.add([window], is_alone=True)
        judgement = watch.judgement()
        assert judgement
        if judgement.verdict is Verdict.FAIL:
            return judgement
    return None


def failed_after(watch: Watch, seen: Iterator[Window]) -> int | None:
    """Windows until FAIL."""
    judgement = failed(watch, seen)
    return round((judgement.signals["watched_errors"].decided_at_s or 0) / 5) if judgement else None


@pytest.mark.parametrize("known", [Pair(0, 20_000), Pair(1000, 200_000), Pair(10_000, 200_000)])
def test_a_version_as_good_as_stable_is_never_rolled_back(known: Pair) -> None:
    """Errors of 0, 0.5 and 5 %: thirty watches each."""
    ratio = known.bad / known.total
    assert {failed_after(watch_of(known), windows(ratio, seed)) for seed in range(30)} == {None}


def test_ten_times_the_errors_are_rolled_back_within_half_a_minute() -> None:
    """From 0.5 to 5 %, at 100 requests a second."""
    found = [failed_after(watch_of(Pair(1000, 200_000)), windows(0.05, seed)) for seed in range(30)]
    assert all(number is not None and number <= 6 for number in found)


def test_a_version_just_within_the_limit_is_rarely_rolled_back() -> None:
    """The promise: at most 1 % of the versions that fail just as often as is harmless."""
    limit = watch_of(Pair(1000, 200_000)).harmless_ratio(NOTHING)
    found = [failed_after(watch_of(Pair(1000, 200_000)), windows(limit, seed)) for seed in range(200)]
    assert sum(number is not None for number in found) <= 6


def test_the_less_is_known_of_stable_the_more_is_harmless() -> None:
    """No errors in 60 requests say little, in 60,000 much; no requests say nothing."""
    few, many = (watch_of(Pair(0, total)).harmless_ratio(NOTHING) for total in (60, 60_000))
    assert few > 0.1
    assert many < 0.006
    assert failed(watch_of(NOTHING), windows(1.0, 1)) is None


def test_clusters_of_failures_need_more_of_them() -> None:
    """Stable's own retries in clusters of five are no harm of the canary."""
    known = Pair(2000, 200_000)
    found = {failed_after(watch_of(known, phi=5.0), windows(0.02, seed, cluster=5)) for seed in range(30)}
    assert found == {None}


def test_a_slow_drift_is_no_harm() -> None:
    """Errors that rise eightfold within the watch, a little faster every minute."""
    rising = 0.005 * 8 ** (np.arange(WATCH) / WATCH)
    found = {failed_after(watch_of(Pair(1000, 200_000)), windows(rising, seed)) for seed in range(30)}
    assert found == {None}


def test_the_same_rise_at_once_is_harm() -> None:
    """Eightfold from one minute to the next, after five healthy ones."""
    jump = np.repeat([0.005, 0.04], [60, WATCH - 60])
    found = [failed_after(watch_of(Pair(1000, 200_000)), windows(jump, seed)) for seed in range(30)]
    assert all(number is not None and 60 < number <= 70 for number in found)


def test_the_reason_counts_from_when_the_harm_began() -> None:
    """Ten good minutes before it do not make "1 % failed, 2 % are allowed" of it."""
    jump = np.repeat([0.005, 0.05], [120, WATCH - 120])
    judgement = failed(watch_of(Pair(1000, 200_000)), windows(jump, 5))
    assert judgement
    signal = judgement.signals["watched_errors"]
    assert (signal.canary_ratio, signal.limit) == (pytest.approx(0.05, abs=0.01), pytest.approx(0.016, abs=0.003))
    assert "% are allowed; a harmless canary shows this" in judgement.reason


def test_recent_failures_end_two_minutes_ago() -> None:
    """Harm must not count as usual before it is found; older than five minutes more is forgotten."""
    recent = RecentFailures()
    for number in range(1, 121):
        recent.add([Window(5.0 * number, 5.0, "errors", Pair(1, 10), Pair(5, 10))], is_alone=number > 90)
    assert recent.known() == Pair(54 + 6 * 5, 600)
