"""One betting stream: what it finds in known data, and the validity of its e-values on every path."""

import itertools
import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from rollout.judge import JudgeConfig, Pair, SignalRule
from rollout.judge.fail import Stream, observe_all
from rollout.judge.logarithms import log_sum
from rollout.judge.starts import CHANGES, EVER, FIRST, SPREAD
from rollout.signals.catalogue import catalogue

RULES = catalogue().rules

THRESHOLD = math.log(100)
ERRORS = replace(RULES["errors"], margin=0.0)
LATENCY = RULES["latency"]
SHADOW = RULES["disagreement"]

pairs = st.integers(0, 200).flatmap(lambda total: st.builds(Pair, st.integers(0, total), st.just(total)))


def path(
    stream: Stream, stable: Iterable[Pair], canary: Iterable[Pair], *, changes: Container[int] = ()
) -> list[float]:
    """Log e after each window; the weight changed before the windows in `changes`, counted from 0."""
    log_e = []
    for i, (s, c) in enumerate(zip(stable, canary, strict=True)):
        if i in changes:
            stream.weight_changed()
        stream.observe(s, c)
        log_e.append(stream.log_e)
    return log_e


def defined(
    rule: SignalRule, stable: Sequence[Pair], canary: Sequence[Pair], *, changes: Sequence[int] = ()
) -> mpmath.mpf:
    """Log e after all windows by definition: 50 digits, a separate sum for every start and odds ratio."""
    config = JudgeConfig()
    with mpmath.workdps(50):
        left = [mpmath.sqrt(mpmath.mpf(SPREAD) / (SPREAD + t)) for t in range(len(canary) + 1)]
        starts = [mpmath.mpf(EVER) * (now - then) for now, then in itertools.pairwise(left)]
        starts[0] += mpmath.mpf(FIRST)
        for number, at in enumerate(changes, 1):
            starts[at] += 2 * mpmath.mpf(CHANGES) / ((number + 1) * (number + 2))
        total = 1 - sum(starts)
        for odds_ratio in config.odds_ratios:
            e_values = [
                min(mpmath.mpf(config.window_cap), e_value(rule, s, c, mpmath.mpf(odds_ratio)))
                for s, c in zip(stable, canary, strict=True)
            ]
            for begin, start in enumerate(starts):
                total += start * mpmath.fprod(e_values[begin:]) / len(config.odds_ratios)
        return mpmath.log(total)


def e_value(rule: SignalRule, stable: Pair, canary: Pair, r: mpmath.mpf) -> mpmath.mpf:
    """The e-value of one window as docs/decisions/0002 defines it, for a rule with margin 0."""
    tolerance, bad = mpmath.mpf(rule.tolerance), stable.bad + canary.bad
    if rule.kernel == "rare":
        share = tolerance * canary.total / (tolerance * canary.total + stable.total)
        return r**canary.bad / (1 + share * (r - 1)) ** bad

    def normaliser(odds: mpmath.mpf) -> mpmath.mpf:
        return sum(
            math.comb(canary.total, u) * math.comb(stable.total, bad - u) * odds**u
            for u in range(max(0, bad - stable.total), min(canary.total, bad) + 1)
        )

    return r**canary.bad * normaliser(tolerance) / normaliser(tolerance * r)


def failed_at(log_e: list[float]) -> int | None:
    """The first window, from 1, at which the evidence suffices."""
    return next((i for i, value in enumerate(log_e, 1) if value >= THRESHOLD), None)


@pytest.mark.parametrize(
    ("canary", "canary_total", "stable", "point", "final"),
    [
        pytest.param([100] * 7 + [1] * 3, 1000, Pair(1, 1000), 3, 14.091250, id="spinnaker-6278"),
        pytest.param([100] * 7 + [1] * 3, 1000, Pair(9, 9000), 3, 13.424292, id="spinnaker-6278-at-10-percent"),
        pytest.param([0, 1, 2, 1, 0, 0], 20, Pair(0, 180), None, 4.493223, id="kayenta-426-at-10-percent"),
        pytest.param([0, 1, 2, 1, 0, 0], 200, Pair(0, 200), None, 1.229058, id="kayenta-426-equal-arms"),
        pytest.param([0, 1, 2, 1, 0, 0] * 3, 200, Pair(0, 200), 15, 5.143423, id="kayenta-426-three-times"),
        pytest.param([1, 4, 2, 3, 1], 1000, Pair(0, 1000), 5, 4.610544, id="kayenta-799"),
    ],
)
def test_data_in_which_mann_whitney_found_nothing(
    canary: list[int], canary_total: int, stable: Pair, point: int | None, final: float
) -> None:
    """Kayenta passed these for years. Four errors against none stay undecided: with equal arms that is p = 1/16."""
    windows = [stable] * len(canary), [Pair(bad, canary_total) for bad in canary]
    log_e = path(Stream(ERRORS, JudgeConfig()), *windows)
    assert (failed_at(log_e), log_e[-1]) == (point, pytest.approx(final, abs=1e-6))
    assert float(defined(ERRORS, *windows)) == pytest.approx(final, abs=1e-6)


def test_erratic_latency_is_found_in_its_buckets() -> None:
    """Kayenta issue 780: same median, wide spread. Mann-Whitney passed it; buckets find it at the sixth point."""
    steady = [10.0, 10.1, 10.2, 10.3, 10.4, 10.5, 10.6, 17.0, 17.1, 17.2, 17.3, 17.4, 17.5, 17.6, 17.7]
    erratic = [1.0, 100.0, 4.0, 101.0, 5.0, 102.0, 6.0, 103.0, 7.0, 104.0, 8.0, 105.0, 9.0, 106.0, 17.0]
    buckets = [
        tuple([Pair(20 * (value > bound), 20) for value in values] for values in (steady, erratic))
        for bound in (5, 25, 50, 75)
    ]
    paths = [
        path(
            Stream(LATENCY, JudgeConfig()),
            *windows,
        )
        for windows in buckets
    ]
    log_e = [log_sum(at_point) - math.log(len(at_point)) for at_point in zip(*paths, strict=True)]
    final = mpmath.log(sum(mpmath.exp(defined(LATENCY, *windows)) for windows in buckets) / len(buckets))
    assert (failed_at(log_e), log_e[-1]) == (6, pytest.approx(15.144876, abs=1e-6))
    assert float(final) == pytest.approx(15.144876, abs=1e-6)


def test_small_harm_is_found_at_a_high_rate_of_requests() -> None:
    """Twice 0.1 % of 20,000 copied requests a second. Bets on 1.5 times the tolerance or more never find it."""
    rule = replace(ERRORS, margin=None)  # as in a plan
    stable, canary = [Pair(100, 100_000)] * 500, [Pair(200, 100_000)] * 500
    assert failed_at(path(Stream(rule, JudgeConfig()), stable, canary)) == 3
    asked_for = replace(rule, margin=0.0005)
    assert failed_at(path(Stream(asked_for, JudgeConfig()), stable, canary)) == 8
    assert failed_at(path(Stream(rule, JudgeConfig(plenty=math.inf)), stable, canary)) is None


def test_large_harm_is_found_as_soon_at_a_high_rate_of_requests() -> None:
    """Forty times the failures, with no bet on forty, are found in the three windows that the cap needs."""
    assert failed_at(path(Stream(ERRORS, JudgeConfig()), [Pair(100, 100_000)] * 5, [Pair(4000, 100_000)] * 5)) == 3


@given(stable=st.integers(1, 10**6), canary=st.integers(1, 10**6), bad=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_the_bets_of_a_window_do_not_depend_on_its_failures(stable: int, canary: int, bad: tuple[float, float]) -> None:
    """The expected e-value of a window is at most 1 only if its bets are chosen before its failures are seen."""
    stream = Stream(replace(ERRORS, margin=None), JudgeConfig())
    none = stream.terms_for(Pair(0, stable), Pair(0, canary))
    assert stream.terms_for(Pair(int(bad[0] * stable), stable), Pair(int(bad[1] * canary), canary)) == none
    odds_ratios, margin = none
    requests = stable * canary / (stable + canary)
    assert (odds_ratios[-1] == 1.15) == (requests >= 2000)
    assert margin == pytest.approx(0.0005 * min(1, 2000 / requests))


@pytest.mark.parametrize(("rule", "p_s", "p_c"), [(ERRORS, 0.4, 0.5), (LATENCY, 0.4, 0.4 * 1.25 / 1.1)])
@pytest.mark.parametrize("phi", [1.0, 3.0])
@pytest.mark.parametrize("swapped", [False, True])
def test_the_expected_e_value_over_all_paths_is_at_most_one(
    rule: SignalRule, p_s: float, p_c: float, phi: float, swapped: bool
) -> None:
    """Every path of four small windows is enumerated, at the edge of the tolerance, with start prior and cap.

    The weight changes after each window in favour of the canary: what was seen so far may decide that.
    """
    n_s, n_c = 2, 1
    tables = [
        (Pair(y, n_s), Pair(x, n_c), binom.pmf(y, n_s, p_s) * binom.pmf(x, n_c, p_c)) for y in range(3) for x in (0, 1)
    ]
    mean = 0.0
    for steps in itertools.product(tables, repeat=4):
        stream = Stream(rule, JudgeConfig(window_cap=1.5), phi=phi, swapped=swapped)
        for stable, canary, _ in steps:
            before = stream.log_e
            stream.observe(stable, canary)
            if stream.log_e < before:
                stream.weight_changed()
        mean += math.prod(chance for _, _, chance in steps) * math.exp(stream.log_e)
    assert mean <= 1 + 1e-9


@pytest.mark.parametrize("phi", [1.0, 3.0])
def test_the_expected_e_value_over_all_paths_is_at_most_one_for_a_fixed_share(phi: float) -> None:
    """The same enumeration for shadow answers that differ from stable's exactly as often as allowed."""
    assert SHADOW.limit is not None
    chances = [binom.pmf(x, 2, SHADOW.limit) for x in range(3)]
    mean = 0.0
    for counts in itertools.product(range(3), repeat=5):
        stream = Stream(SHADOW, JudgeConfig(window_cap=1.5), phi=phi)
        log_e = path(stream, [Pair(0, 2)] * 5, [Pair(x, 2) for x in counts], changes=(2, 3))[-1]
        mean += math.prod(chances[x] for x in counts) * math.exp(log_e)
    assert mean <= 1 + 1e-9


@pytest.mark.parametrize(
    ("healthy", "bad", "within"),
    [(360, 5, 6), (2160, 5, 7), (8640, 5, 8), (360, 1, 17), (2160, 1, 20), (8640, 1, 23)],
    ids=[
        "half-fail-30-min",
        "half-fail-3-h",
        "half-fail-12-h",
        "tenth-fails-30-min",
        "tenth-fails-3-h",
        "tenth-fails-12-h",
    ],
)
def test_harm_after_a_long_healthy_time_is_found_soon(healthy: int, bad: int, within: int) -> None:
    """After half an hour, three or twelve hours of health, half or a tenth of all requests fail.

    A prior that ended after two hours needed 34 and 195 windows after three hours, 271 and 1,588 after twelve. A
    new canary fails after 3 and 8.
    """
    stream = Stream(RULES["errors"], JudgeConfig())
    path(stream, [Pair(1, 90)] * healthy, [Pair(0, 10)] * healthy)
    found = failed_at(path(stream, [Pair(1, 90)] * within, [Pair(bad, 10)] * within))
    assert found == within


@pytest.mark.parametrize("healthy", [36, 360, 8640])
def test_harm_that_begins_with_a_late_change_of_weight_is_found_soon(healthy: int) -> None:
    """After three minutes, half an hour or twelve hours it takes four windows; a new canary takes three."""
    stream = Stream(RULES["errors"], JudgeConfig())
    path(stream, [Pair(1, 90)] * healthy, [Pair(0, 10)] * healthy)
    assert failed_at(path(stream, [Pair(1, 90)] * 6, [Pair(5, 10)] * 6, changes=(0,))) == 4


def test_one_window_multiplies_the_evidence_by_at_most_the_cap() -> None:
    """One window alone, however bad, cannot fail a canary: it may be one burst."""
    stream = Stream(RULES["errors"], JudgeConfig(window_cap=10))
    assert path(stream, [Pair(0, 1_000_000)], [Pair(100_000, 100_000)]) <= [math.log(10)]


def test_dispersion_divides_the_evidence() -> None:
    """The same windows are weaker evidence when stable's counts have four times the dispersion of chance."""
    windows = [Pair(1, 90)] * 10, [Pair(3, 10)] * 10
    clean, noisy = (path(Stream(ERRORS, JudgeConfig(), phi=phi), *windows)[-1] for phi in (1.0, 4.0))
    assert noisy < clean / 2


def test_evidence_is_the_sum_over_all_starts_and_odds_ratios() -> None:
    """Compared with 50-digit sums, for three changes of weight, two of them in consecutive windows."""
    stable, canary = [Pair(1, 90), Pair(0, 80), Pair(2, 95)] * 20, [Pair(0, 10), Pair(1, 9), Pair(0, 12)] * 20
    changes = (17, 18, 40)
    for rule in (ERRORS, LATENCY):
        expected = float(defined(rule, stable, canary, changes=changes))
        assert path(Stream(rule, JudgeConfig()), stable, canary, changes=changes)[-1] == pytest.approx(
            expected, abs=1e-8
        )


def test_only_a_swapped_stream_finds_a_fall() -> None:
    """A class that vanishes is an excess of stable, not of the canary."""
    rise, fall = (
        path(Stream(RULES["class"], JudgeConfig(), swapped=swapped), [Pair(20, 90)] * 8, [Pair(0, 10)] * 8)[-1]
        for swapped in (False, True)
    )
    assert rise < 0 < THRESHOLD < fall


@given(windows=st.lists(st.tuples(pairs, pairs), max_size=12), empty=st.integers(0, 12), other=pairs)
def test_a_window_without_requests_on_one_side_changes_nothing(
    windows: list[tuple[Pair, Pair]], empty: int, other: Pair
) -> None:
    """It leaves the evidence unchanged, wherever it comes."""
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
    """One more failed canary request in any window raises the evidence or leaves it."""
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


def test_ten_thousand_windows_neither_overflow_nor_underflow() -> None:
    """Log e stays finite over 14 hours of windows that are all bad."""
    stream = Stream(ERRORS, JudgeConfig())
    assert all(map(math.isfinite, path(stream, [Pair(1, 90)] * 10_000, [Pair(10, 10)] * 10_000)))


@pytest.mark.parametrize("requests", [40, 1_000, 30_000, 1_000_000])
def test_streams_that_are_updated_together_have_the_evidence_of_each_alone(requests: int) -> None:
    """Eight classes, harmless, then one doubled, then harmless again: equal within 1e-9 after every window.

    Of bets that have lost only a lower bound is known, and this does not change the evidence.
    """
    rng, config = np.random.default_rng(requests), JudgeConfig()
    rule = RULES["class"]
    together, alone = (
        [
            Stream(rule, config, tolerance=tolerance, swapped=swapped, phi=1 + label % 3, is_continued=label == 7)
            for label in range(8)
            for tolerance in (None, 4.0)
            for swapped in (False, True)
        ]
        for _ in range(2)
    )
    usual = np.ones(8) / 8
    doubled = np.array([2.0, *np.ones(7)]) / 9
    for tick in range(30):
        stable = rng.multinomial(requests, usual)
        canary = rng.multinomial(requests // 10, doubled if 12 <= tick < 20 else usual)
        pairs = [
            (Pair(int(stable[label]), requests), Pair(int(canary[label]), requests // 10))
            for label in range(8)
            for _ in range(4)
        ]
        if tick == 15:
            for stream in (*together, *alone):
                stream.weight_changed()
        observe_all((stream, *pair) for stream, pair in zip(together, pairs, strict=True))
        for stream, pair in zip(alone, pairs, strict=True):
            stream.observe(*pair)
        assert [s.log_e for s in together] == pytest.approx([s.log_e for s in alone], rel=1e-12, abs=1e-9)
        assert [s.bad for s in together] == [s.bad for s in alone]
