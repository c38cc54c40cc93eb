"""The schedule is fixed by the scenario and its seed, and follows the rate that the scenario states."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, kstest

from loadtest.pacing import Pacer
from loadtest.scenario import Mix, Scenario, Segment, Task
from loadtest.schedule import arrivals

RATES = st.floats(0, 50)
SEGMENTS = st.lists(st.builds(Segment, for_s=st.floats(0.5, 20), rate=RATES, to_rate=RATES), min_size=1, max_size=4)


def scenario(shape: list[Segment], *, arrivals: str = "poisson", seed: int = 1, mix: Mix | None = None) -> Scenario:
    return Scenario.model_validate(
        {"name": "t", "seed": seed, "shape": shape, "arrivals": arrivals, "mix": mix or Mix(), "labelled_ratio": 0.25}
    )


def expected_until(shape: list[Segment], at_s: float) -> float:
    """Requests expected in the first `at_s` seconds, by the trapezoid rule."""
    total = 0.0
    for segment in shape:
        inside_s = min(max(0.0, at_s), segment.for_s)
        rate_there = segment.rate + (segment.end_rate - segment.rate) * inside_s / segment.for_s
        total += (segment.rate + rate_there) / 2 * inside_s
        at_s -= segment.for_s
    return total


@given(shape=SEGMENTS, kind=st.sampled_from(["poisson", "constant"]), seed=st.integers(0, 1000))
def test_arrivals_come_in_order_and_inside_the_scenario(shape: list[Segment], kind: str, seed: int) -> None:
    """Due times never decrease, are within the scenario, and are the same for the same seed."""
    if sum(segment.expected for segment in shape) < 1:
        return
    plan = scenario(shape, arrivals=kind, seed=seed)
    schedule = list(arrivals(plan))
    assert all(before.due_s <= after.due_s for before, after in pairwise(schedule))
    assert all(0 <= arrival.due_s <= plan.duration_s * (1 + 1e-9) for arrival in schedule)
    assert schedule == list(arrivals(plan))


@given(shape=SEGMENTS)
def test_constant_arrivals_are_due_when_the_next_whole_request_is_expected(shape: list[Segment]) -> None:
    """The n-th constant arrival is due at the moment until which n requests are expected, for any shape."""
    if sum(segment.expected for segment in shape) < 1:
        return
    for number, arrival in enumerate(arrivals(scenario(shape, arrivals="constant")), start=1):
        assert expected_until(shape, arrival.due_s) == pytest.approx(number, rel=1e-6, abs=1e-6)


def test_poisson_counts_have_the_mean_and_the_spread_of_a_poisson_process() -> None:
    """Over 400 seeds the count of a 50-request scenario varies as a Poisson variable does: no more, no less."""
    shape = [Segment(for_s=5, rate=10)]
    counts = np.array([sum(1 for _ in arrivals(scenario(shape, seed=seed))) for seed in range(400)])
    dispersion = float(((counts - 50) ** 2 / 50).sum())
    assert chi2.ppf(1e-4, len(counts)) < dispersion < chi2.ppf(1 - 1e-4, len(counts))


def test_poisson_arrivals_follow_a_ramp() -> None:
    """Stretched back by the cumulative rate, the arrivals of a ramp with a step are uniform."""
    shape = [Segment(for_s=20, rate=0, to_rate=100), Segment(for_s=10, rate=200), Segment(for_s=10, rate=50, to_rate=0)]
    plan = scenario(shape)
    stretched = [expected_until(shape, arrival.due_s) / plan.expected_arrivals for arrival in arrivals(plan)]
    assert kstest(stretched, "uniform").pvalue > 1e-3


def test_another_mix_leaves_the_times_as_they_are() -> None:
    """Times and kinds come from separate streams, so two mixes can be compared on the same arrivals."""
    shape = [Segment(for_s=10, rate=50)]
    one, other = (scenario(shape, mix=mix) for mix in (Mix(), Mix(one_row=1, many_rows=1, bad_input=1)))
    assert [arrival.due_s for arrival in arrivals(one)] == [arrival.due_s for arrival in arrivals(other)]


def test_tasks_come_in_the_shares_of_the_mix() -> None:
    """Weights 60 : 20 : 20 with a quarter of the 80 labelled: every share is met up to chance."""
    plan = scenario([Segment(for_s=100, rate=100)], mix=Mix(one_row=60, many_rows=20, bad_input=20))
    counts = Counter(arrival.task for arrival in arrivals(plan))
    weights = {Task.ONE_ROW: 60, Task.MANY_ROWS: 20, Task.FEEDBACK: 20, Task.BAD_INPUT: 20}
    expected = {task: counts.total() * weight / 120 for task, weight in weights.items()}
    distance = sum((counts[task] - expected[task]) ** 2 / expected[task] for task in weights)
    assert distance < chi2.ppf(1 - 1e-4, len(weights) - 1)


def test_a_run_is_finished_when_every_claimed_arrival_was_released() -> None:
    """The last claim alone does not finish a run, because its answer is still to come."""
    pacer = Pacer(arrivals(scenario([Segment(for_s=3, rate=1)], arrivals="constant")))
    while pacer.claim():
        assert not pacer.is_finished
    for _ in range(3):
        assert not pacer.is_finished
        pacer.release()
    assert pacer.is_finished


def test_arrivals_that_no_user_claimed_in_time_are_found() -> None:
    """Of arrivals due at 1, 2, 3, 4 s with one claimed, two are overdue after 3.5 s."""
    pacer = Pacer(arrivals(scenario([Segment(for_s=4, rate=1)], arrivals="constant")))
    pacer.claim()
    assert [arrival.due_s for arrival in pacer.overdue(3.5)] == pytest.approx([2, 3])
