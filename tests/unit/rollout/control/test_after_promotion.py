"""A promoted canary has all the traffic; the watch judges it by the failures that were seen before."""

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
    """The judgement at the first FAIL, or None if there is none."""
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
    """The number of windows until FAIL, or None if there is none."""
    judgement = failed(watch, seen)
    return round((judgement.signals["watched_errors"].decided_at_s or 0) / 5) if judgement else None


@pytest.mark.parametrize("known", [Pair(0, 20_000), Pair(1000, 200_000), Pair(10_000, 200_000)])
def test_a_version_as_good_as_stable_is_never_rolled_back(known: Pair) -> None:
    """With 0, 0.5 and 5 % errors, none of 30 watches each ends in a rollback."""
    ratio = known.bad / known.total
    assert {failed_after(watch_of(known), windows(ratio, seed)) for seed in range(30)} == {None}


def test_ten_times_the_errors_are_rolled_back_within_half_a_minute() -> None:
    """Errors rise from 0.5 to 5 % at 100 requests a second."""
    found = [failed_after(watch_of(Pair(1000, 200_000)), windows(0.05, seed)) for seed in range(30)]
    assert all(number is not None and number <= 6 for number in found)


def test_a_version_just_within_the_limit_is_rarely_rolled_back() -> None:
    """A canary whose error ratio is exactly the harmless limit is rolled back with probability at most 1 %."""
    limit = watch_of(Pair(1000, 200_000)).harmless_ratio(NOTHING)
    found = [failed_after(watch_of(Pair(1000, 200_000)), windows(limit, seed)) for seed in range(200)]
    assert sum(number is not None for number in found) <= 6


def test_less_history_of_stable_gives_a_wider_harmless_limit() -> None:
    """No errors in 60 requests prove little, in 60,000 much; without any requests nothing is judged."""
    few, many = (watch_of(Pair(0, total)).harmless_ratio(NOTHING) for total in (60, 60_000))
    assert few > 0.1
    assert many < 0.006
    assert failed(watch_of(NOTHING), windows(1.0, 1)) is None


def test_clustered_failures_need_more_evidence_for_a_rollback() -> None:
    """Stable's failures already came in clusters of five (retries), so such clusters are not blamed on the canary."""
    known = Pair(2000, 200_000)
    found = {failed_after(watch_of(known, phi=5.0), windows(0.02, seed, cluster=5)) for seed in range(30)}
    assert found == {None}


def test_a_slow_drift_is_not_rolled_back() -> None:
    """Errors rise eightfold over the whole watch, exponentially."""
    rising = 0.005 * 8 ** (np.arange(WATCH) / WATCH)
    found = {failed_after(watch_of(Pair(1000, 200_000)), windows(rising, seed)) for seed in range(30)}
    assert found == {None}


def test_a_sudden_rise_of_the_same_size_is_rolled_back() -> None:
    """Errors rise eightfold from one window to the next, after five healthy minutes."""
    jump = np.repeat([0.005, 0.04], [60, WATCH - 60])
    found = [failed_after(watch_of(Pair(1000, 200_000)), windows(jump, seed)) for seed in range(30)]
    assert all(number is not None and 60 < number <= 70 for number in found)


def test_the_reason_gives_the_error_ratio_since_the_harm_began() -> None:
    """Ten good minutes before must not dilute it to "1 % failed, 2 % are allowed"."""
    jump = np.repeat([0.005, 0.05], [120, WATCH - 120])
    judgement = failed(watch_of(Pair(1000, 200_000)), windows(jump, 5))
    assert judgement
    signal = judgement.signals["watched_errors"]
    assert (signal.canary_ratio, signal.limit) == (pytest.approx(0.05, abs=0.01), pytest.approx(0.016, abs=0.003))
    assert "% are allowed; a harmless canary shows this" in judgement.reason


def test_recent_failures_end_two_minutes_ago() -> None:
    """Ongoing harm must not become part of the baseline before it is found; failures over 7 minutes old are dropped."""
    recent = RecentFailures()
    for number in range(1, 121):
        recent.add([Window(5.0 * number, 5.0, "errors", Pair(1, 10), Pair(5, 10))], is_alone=number > 90)
    assert recent.known() == Pair(54 + 6 * 5, 600)
