"""One stream of suspicion: what it finds in known data, and that it stays valid however it is looked at."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from rollout.judge import DEFAULT_RULES, JudgeConfig, Pair, SignalRule
from rollout.judge.fail import Stream
from rollout.judge.logarithms import log_sum

THRESHOLD = math.log(100)
ERRORS = replace(DEFAULT_RULES["errors"], margin=0.0)
LATENCY = DEFAULT_RULES["latency"]
SHADOW = DEFAULT_RULES["disagreement"]

pairs = st.integers(0, 200).flatmap(lambda total: st.builds(Pair, st.integers(0, total), st.just(total)))


def path(stream: Stream, stable: Iterable[Pair], canary: Iterable[Pair]) -> list[float]:
    """Log e after each window."""
    log_e = []
    for s, c in zip(stable, canary, strict=True):
        stream.observe(s, c)
        log_e.append(stream.log_e)
    return log_e


def failed_at(log_e: list[float]) -> int | None:
    """The first window, from 1, at which the evidence suffices."""
    return next((i for i, value in enumerate(log_e, 1) if value >= THRESHOLD), None)


@pytest.mark.parametrize(
    ("canary", "canary_total", "stable", "point", "final"),
    [
        pytest.param([100] * 7 + [1] * 3, 1000, Pair(1, 1000), 3, 14.192764, id="spinnaker-6278"),
        pytest.param([100] * 7 + [1] * 3, 1000, Pair(9, 9000), 3, 13.525806, id="spinnaker-6278-at-10-percent"),
        pytest.param([0, 1, 2, 1, 0, 0], 20, Pair(0, 180), 4, 4.795124, id="kayenta-426-at-10-percent"),
        pytest.param([0, 1, 2, 1, 0, 0], 200, Pair(0, 200), None, 1.494503, id="kayenta-426-equal-arms"),
        pytest.param([0, 1, 2, 1, 0, 0] * 3, 200, Pair(0, 200), 15, 5.305892, id="kayenta-426-three-times"),
        pytest.param([1, 4, 2, 3, 1], 1000, Pair(0, 1000), 5, 4.893181, id="kayenta-799"),
    ],
)
def test_arrays_on_which_mann_whitney_was_blind(
    canary: list[int], canary_total: int, stable: Pair, point: int | None, final: float
) -> None:
    """Kayenta passed these for years; four errors against none with equal arms is p = 1/16, and stays undecided."""
    stream = Stream(ERRORS, JudgeConfig(horizon_windows=len(canary)))
    log_e = path(stream, [stable] * len(canary), [Pair(bad, canary_total) for bad in canary])
    assert (failed_at(log_e), log_e[-1]) == (point, pytest.approx(final, abs=1e-6))


def test_a_canary_that_became_erratic_fails_on_its_latency_buckets() -> None:
    """kayenta issue 780: same median, wild spread. Mann-Whitney passed it; buckets see it at the sixth point."""
    steady = [10.0, 10.1, 10.2, 10.3, 10.4, 10.5, 10.6, 17.0, 17.1, 17.2, 17.3, 17.4, 17.5, 17.6, 17.7]
    erratic = [1.0, 100.0, 4.0, 101.0, 5.0, 102.0, 6.0, 103.0, 7.0, 104.0, 8.0, 105.0, 9.0, 106.0, 17.0]
    buckets = [
        path(
            Stream(LATENCY, JudgeConfig(horizon_windows=len(steady))),
            [Pair(20 * (value > bound), 20) for value in steady],
            [Pair(20 * (value > bound), 20) for value in erratic],
        )
        for bound in (5, 25, 50, 75)
    ]
    log_e = [log_sum(at_point) - math.log(len(at_point)) for at_point in zip(*buckets, strict=True)]
    assert (failed_at(log_e), log_e[-1]) == (6, pytest.approx(15.275417, abs=1e-6))


@pytest.mark.parametrize(("rule", "p_s", "p_c"), [(ERRORS, 0.4, 0.5), (LATENCY, 0.4, 0.4 * 1.25 / 1.1)])
@pytest.mark.parametrize("phi", [1.0, 3.0])
@pytest.mark.parametrize("swapped", [False, True])
def test_the_mean_over_all_paths_is_at_most_one(
    rule: SignalRule, p_s: float, p_c: float, phi: float, swapped: bool
) -> None:
    """Brute force over every path of four small windows, at the edge of the tolerance: start prior, cap and all."""
    n_s, n_c = 2, 1
    tables = [
        (Pair(y, n_s), Pair(x, n_c), binom.pmf(y, n_s, p_s) * binom.pmf(x, n_c, p_c)) for y in range(3) for x in (0, 1)
    ]
    mean = 0.0
    for steps in itertools.product(tables, repeat=4):
        stream = Stream(rule, JudgeConfig(horizon_windows=3, window_cap=1.5), phi=phi, swapped=swapped)
        log_e = path(stream, [s for s, _, _ in steps], [c for _, c, _ in steps])[-1]
        mean += math.prod(chance for _, _, chance in steps) * math.exp(log_e)
    assert mean <= 1 + 1e-9


@pytest.mark.parametrize("phi", [1.0, 3.0])
def test_the_mean_over_all_paths_is_at_most_one_against_a_fixed_share(phi: float) -> None:
    """Likewise for shadow answers that differ from stable's just as often as is allowed."""
    assert SHADOW.limit is not None
    chances = [binom.pmf(x, 2, SHADOW.limit) for x in range(3)]
    mean = 0.0
    for counts in itertools.product(range(3), repeat=5):
        stream = Stream(SHADOW, JudgeConfig(horizon_windows=3, window_cap=1.5), phi=phi)
        log_e = path(stream, [Pair(0, 2)] * 5, [Pair(x, 2) for x in counts])[-1]
        mean += math.prod(chances[x] for x in counts) * math.exp(log_e)
    assert mean <= 1 + 1e-9


def test_a_good_record_does_not_protect_a_canary_that_turns_bad() -> None:
    """Half an hour of health, then half of all requests fail: found within six windows, as a fresh canary would be."""
    stream = Stream(DEFAULT_RULES["errors"], JudgeConfig())
    path(stream, [Pair(1, 90)] * 360, [Pair(0, 10)] * 360)
    log_e = path(stream, [Pair(1, 90)] * 6, [Pair(5, 10)] * 6)
    assert failed_at(log_e) is not None


def test_one_window_multiplies_the_evidence_by_at_most_the_cap() -> None:
    """However terrible one window is, it cannot fail a canary alone: it may be one burst."""
    stream = Stream(DEFAULT_RULES["errors"], JudgeConfig(window_cap=10))
    assert path(stream, [Pair(0, 1_000_000)], [Pair(100_000, 100_000)]) <= [math.log(10)]


def test_dispersion_divides_the_evidence() -> None:
    """The same windows are worth less when stable's own counts are four times as noisy as chance."""
    windows = [Pair(1, 90)] * 10, [Pair(3, 10)] * 10
    clean, noisy = (path(Stream(ERRORS, JudgeConfig(), phi=phi), *windows)[-1] for phi in (1.0, 4.0))
    assert noisy < clean / 2


def test_a_fall_is_seen_by_a_swapped_stream_only() -> None:
    """A class that vanishes is no excess of the canary, but one of stable."""
    rise, fall = (
        path(Stream(DEFAULT_RULES["class"], JudgeConfig(), swapped=swapped), [Pair(20, 90)] * 8, [Pair(0, 10)] * 8)[-1]
        for swapped in (False, True)
    )
    assert rise < 0 < THRESHOLD < fall


@given(windows=st.lists(st.tuples(pairs, pairs), max_size=12), empty=st.integers(0, 12), other=pairs)
def test_windows_with_nothing_to_compare_change_nothing(
    windows: list[tuple[Pair, Pair]], empty: int, other: Pair
) -> None:
    """A window with an idle side, anywhere, leaves the evidence as if it had not been."""
    with_gaps = [*windows[:empty], (Pair(0, 0), Pair(0, 0)), (other, Pair(0, 0)), (Pair(0, 0), other), *windows[empty:]]
    ends = []
    for observed in (windows, with_gaps):
        stream = Stream(ERRORS, JudgeConfig())
        path(stream, [s for s, _ in observed], [c for _, c in observed])
        ends.append(stream.log_e)
    assert ends[0] == ends[1]


@given(windows=st.lists(st.tuples(pairs, pairs), min_size=1, max_size=12), worse=st.integers(0, 11))
def test_more_bad_canary_events_never_lower_the_evidence_of_errors(
    windows: list[tuple[Pair, Pair]], worse: int
) -> None:
    """One more failed canary request in some window: the evidence stays or rises."""
    s, c = windows[worse % len(windows)]
    if c.bad == c.total:
        return
    harmed = list(windows)
    harmed[worse % len(windows)] = (s, Pair(c.bad + 1, c.total))
    before, after = (
        path(Stream(ERRORS, JudgeConfig()), [s for s, _ in seen], [c for _, c in seen])[-1]
        for seen in (windows, harmed)
    )
    assert after >= before - 1e-9


def test_ten_thousand_windows_neither_overflow_nor_vanish() -> None:
    """A day of windows, all bad and then all good, keeps a finite log."""
    stream = Stream(ERRORS, JudgeConfig())
    assert all(map(math.isfinite, path(stream, [Pair(1, 90)] * 10_000, [Pair(10, 10)] * 10_000)))
