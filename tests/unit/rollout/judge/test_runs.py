"""Many ticks in one call give the judgement of one tick at a time, to the last bit."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rollout.judge import JudgeConfig, OwnNoise, Pair, SignalRule, Verdict, Window
from rollout.judge.judge import Judge
from rollout.judge.types import BothPairs
from rollout.judge.windows import Windows
from rollout.signals.catalogue import catalogue
from rollout.spec import RolloutSpec

BY_PLAN = RolloutSpec().judge_config()  # asks a person about classes, and rolls back gross shifts
BY_DEFAULT = JudgeConfig(rules=catalogue().rules)
NOISE = {
    "errors": OwnNoise(clusters=1.2, bursts=1.5, blips=3.0, burst_s=20.0, ratio=0.02, usual_ratio=0.01),
    "class": OwnNoise(clusters=1.0, bursts=2.0, blips=2.0, burst_s=7.0),
}


def history(seed: int, ticks: int, requests: int, harm: float) -> list[list[Window]]:
    """Windows of a release with changes of weight, missed scrapes, and a class, labels and harm that start late."""
    rng = np.random.default_rng(seed)
    windows: list[list[Window]] = []
    labels_from, harm_from, late_from = rng.integers(0, 3 * ticks, 3)
    gap = rng.integers(ticks)
    for tick in range(ticks):
        share = (0.02, 0.1, 0.5, 0.0)[tick * 4 // ticks if rng.random() > 0.02 else 3]
        n_s, n_c = (int(rng.poisson(requests * part)) for part in (1 - share, share))
        worse = harm if tick >= harm_from else 1.0
        ratios = {"errors": 0.01, "latency:100": 0.05, "latency:250": 0.01}
        ratios |= {f"class:{key}": 1 / 8 for key in range(8) if key < 7 or tick >= late_from}
        if tick >= labels_from:
            ratios["wrong_label"] = 0.1
        if gap <= tick < gap + 3:
            ratios = dict(list(ratios.items())[: rng.integers(0, 4)])
        windows.append([])
        for name, ratio in ratios.items():
            stable, canary = (
                Pair(int(rng.binomial(n, p)), n) for n, p in ((n_s, ratio), (n_c, min(1.0, worse * ratio)))
            )
            callers = {"a": BothPairs(stable, Pair(0, 0)), "b": BothPairs(Pair(0, 0), canary)}
            is_labelled = name == "wrong_label" and rng.random() < 0.5
            windows[-1].append(Window(5.0 * tick, 5.0, name, stable, canary, callers=callers if is_labelled else None))
    return windows


@settings(max_examples=60, deadline=None)
@given(
    release=st.tuples(
        st.integers(0, 2**32),
        st.integers(2, 90),
        st.sampled_from([20, 400, 20_000, 2_000_000]),
        st.sampled_from([1.0, 1.0, 1.6, 3.0, 30.0]),
    ),
    config=st.sampled_from([BY_PLAN, BY_DEFAULT]),
    noise=st.sampled_from([{}, NOISE]),
    carried=st.sampled_from([{}, {"class:1": 1.5}]),
    changes=st.sets(st.integers(1, 89), max_size=3),
)
def test_many_ticks_in_one_call_have_the_judgement_of_each_alone(
    release: tuple[int, int, int, float],
    config: JudgeConfig,
    noise: dict[str, OwnNoise],
    carried: dict[str, float],
    changes: set[int],
) -> None:
    """From twenty to two million requests a window: verdict, evidence and time of FAIL are equal."""
    at_once, one_by_one = (Judge(config, noise, carried=carried) for _ in range(2))
    coming: list[Window] = []
    for tick, windows in enumerate(history(*release)):
        if tick in changes:
            at_once.observe(coming)
            coming = []
            at_once.weight_changed()
            one_by_one.weight_changed()
        coming += windows
        one_by_one.observe(windows)
    at_once.observe(coming)
    for weight in (None, 0.1, 1.0):
        assert at_once.judgement(next_weight=weight) == one_by_one.judgement(next_weight=weight)


@settings(max_examples=60, deadline=None)
@given(
    release=st.tuples(
        st.integers(0, 2**32),
        st.integers(2, 90),
        st.sampled_from([20, 400, 20_000, 2_000_000]),
        st.sampled_from([1.0, 1.6, 30.0]),
    ),
    config=st.sampled_from([BY_PLAN, BY_DEFAULT]),
    noise=st.sampled_from([{}, NOISE]),
    parts=st.sets(st.integers(1, 89), max_size=3),
)
@example(release=(149, 2, 400, 1.0), config=BY_PLAN, noise={}, parts=set())  # without any window
def test_windows_as_arrays_have_the_judgement_of_each_alone(
    release: tuple[int, int, int, float], config: JudgeConfig, noise: dict[str, OwnNoise], parts: set[int]
) -> None:
    """This includes missing windows, labels that start in between, and any division into parts."""
    as_arrays, one_by_one = (Judge(config, noise) for _ in range(2))
    ticks = [[replace(window, callers=None) for window in tick] for tick in history(*release) if tick]
    names = ["errors", "latency:100", "latency:250", *(f"class:{key}" for key in range(8)), "wrong_label"]
    windows = Windows.of(ticks, names)
    assert [*windows] == [window for tick in ticks for window in tick]
    for begin, end in pairwise([0, *sorted(parts), len(ticks)]):
        as_arrays.observe(windows.part(begin, end))
    for tick in ticks:
        one_by_one.observe(tick)
    for weight in (None, 0.1, 1.0):
        assert as_arrays.judgement(next_weight=weight) == one_by_one.judgement(next_weight=weight)


def test_ticks_without_a_window_are_not_evidence() -> None:
    """A histogram without the plan's bounds, before the first errors, made the judge fail."""
    ticks = [tick for tick in history(1, 9, 400, 1.0) if tick]
    nothing = Windows.of(ticks, sorted({window.signal for tick in ticks for window in tick})).of_signals(["errors:no"])
    judge = Judge(BY_PLAN)
    judge.observe(nothing)
    assert judge.judgement(next_weight=None) == Judge(BY_PLAN).judgement(next_weight=None)
    assert len(nothing.without_empty_ticks()) == 0


@pytest.mark.parametrize(
    ("ends_s", "bad", "what"),
    [((10, 20, 30, 30), 1, "two windows end at"), ((2, 30), 1, "two windows end at"), ((30, 40), 91, "91 bad of 90")],
    ids=["twice in a run", "seen before", "impossible counts"],
)
def test_arrays_with_impossible_windows_are_refused(ends_s: tuple[float, ...], bad: int, what: str) -> None:
    """Nothing of that run is counted."""
    judge = Judge(BY_DEFAULT)
    for end_s in (1.0, 2.0):
        judge.observe([Window(end_s, 1.0, "errors", Pair(1, 90), Pair(0, 10))])
    ticks = [[Window(end_s, 5.0, "errors", Pair(bad, 90), Pair(0, 10))] for end_s in ends_s]
    with pytest.raises(ValueError, match=what):
        judge.observe(Windows.of(ticks, ["errors"]))
    assert judge.judgement(next_weight=None).signals["errors"].canary == (0, 20)


@pytest.mark.parametrize("first", range(12, 16))
def test_a_fail_within_a_run_has_the_time_of_its_tick(first: int) -> None:
    """A signal that only holds FAILs within the run; at a later tick another signal turns this into a rollback."""
    rules = {
        "errors": SignalRule(kernel="rare", weight=0.5),
        "class": SignalRule(kernel="exact", weight=0.5, two_sided=True, on_fail="hold"),
    }
    config = replace(BY_DEFAULT, rules=rules)
    at_once, one_by_one = Judge(config), Judge(config)
    windows = [
        Window(5.0 * tick, 5.0, name, Pair(*stable), Pair(*canary))
        for tick in range(40)
        for name, stable, canary in (
            ("errors", (5, 900), (9 if tick > 20 else 0, 100)),
            *((f"class:{key}", (225, 900), (70 if key == 0 and tick >= first else 10, 100)) for key in range(4)),
        )
    ]
    at_once.observe(windows)
    failed_at = None
    for tick in range(40):
        one_by_one.observe([window for window in windows if window.end_s == 5.0 * tick])
        judged = one_by_one.judgement(next_weight=None)
        if judged.verdict is Verdict.FAIL and failed_at is None:
            failed_at = tick, judged.on_fail
    assert failed_at is not None
    assert failed_at[1] == "hold"
    judged = at_once.judgement(next_weight=None)
    assert judged == one_by_one.judgement(next_weight=None)
    assert (judged.on_fail, judged.signals["class:0"].decided_at_s) == ("rollback", 5.0 * failed_at[0])


def test_signals_of_weight_zero_are_counted_in_runs() -> None:
    """Without a stream there is no evidence and no array of it."""
    judge = Judge(replace(BY_DEFAULT, rules={"errors": SignalRule(kernel="rare", weight=0.0)}))
    judge.observe(Window(5.0 * tick, 5.0, "errors", Pair(1, 90), Pair(0, 10)) for tick in range(5))
    assert judge.judgement(next_weight=None).signals["errors"].canary == (0, 50)


def test_a_window_that_was_seen_is_refused_in_the_middle_of_a_run() -> None:
    """Nothing of that run is counted."""
    judge = Judge(BY_DEFAULT)
    windows = [Window(5.0 * tick, 5.0, "errors", Pair(1, 90), Pair(0, 10)) for tick in (1, 2, 3, 4, 4)]
    with pytest.raises(ValueError, match="two windows end at"):
        judge.observe(windows)
    assert judge.judgement(next_weight=None).signals["errors"].canary == (0, 10)
