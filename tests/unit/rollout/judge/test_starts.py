"""The prior over the window in which harm begins: its sum is at most 1, and it never runs out."""

import math

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.judge.starts import CHANGES, EVER, FIRST, SPREAD, Starts

DAYS = 7 * 86_400 // 5  # windows of 5 s in a week


def spent(windows: int, *, every: int) -> tuple[float, Starts]:
    """The prior of `windows` windows together, with a change of weight before each `every`-th."""
    starts, priors = Starts(), []
    for i in range(windows):
        if i % every == 0:
            starts.weight_changed()
        priors.append(math.exp(starts.log_next()))
    return math.fsum(priors), starts


@pytest.mark.parametrize("every", [1, 7, DAYS])
def test_a_week_of_windows_with_any_number_of_changes_spends_at_most_one(every: int) -> None:
    """What was spent and what is left add up to 1, and something is left."""
    total, starts = spent(DAYS, every=every)
    assert 0 < math.exp(starts.log_left) < 1
    assert total + math.exp(starts.log_left) == pytest.approx(1, abs=1e-12)


@given(changes=st.lists(st.booleans(), max_size=60))
def test_spent_and_left_are_one_after_every_window(changes: list[bool]) -> None:
    """This holds wherever the weight changes, including before the first window and before every window."""
    starts, total = Starts(), 0.0
    assert math.exp(starts.log_left) == pytest.approx(1)
    for is_changed in changes:
        if is_changed:
            starts.weight_changed()
        total += math.exp(starts.log_next())
        assert total + math.exp(starts.log_left) == pytest.approx(1, abs=1e-12)


def test_rounding_loses_no_window() -> None:
    """Compared with 50 digits: after a week a share is the difference of two numbers that agree in five digits."""
    starts = Starts()
    for window in range(DAYS):
        log_prior = starts.log_next()
        if window in (1, 100, 10_000, DAYS - 1):
            with mpmath.workdps(50):
                left = [mpmath.sqrt(mpmath.mpf(SPREAD) / (SPREAD + at)) for at in (window, window + 1)]
                expected = mpmath.log(mpmath.mpf(EVER) * (left[0] - left[1]))
            assert log_prior == pytest.approx(float(expected), abs=1e-13)


def test_a_late_change_of_weight_gets_the_prior_of_an_early_one() -> None:
    """The third change after a day has the same prior as the third after three windows."""
    late = Starts()
    for _ in range(2):
        late.log_next()
        late.weight_changed()
    for _ in range(17_280):
        late.log_next()
    late.weight_changed()
    assert math.exp(late.log_next()) == pytest.approx(CHANGES * 2 / (4 * 5), rel=0.01)


def test_changes_between_two_windows_count_as_one() -> None:
    """A signal without data for two steps has one window in which harm from them may begin."""
    once, twice = Starts(), Starts()
    for starts in (once, twice):
        starts.log_next()
        starts.weight_changed()
    twice.weight_changed()
    assert (once.log_next(), once.log_left) == (twice.log_next(), twice.log_left)


def test_the_weight_before_the_first_window_is_not_a_change() -> None:
    """The first weight of a release has the prior of the first window."""
    told, plain = Starts(), Starts()
    told.weight_changed()
    assert told.log_next() == plain.log_next() == pytest.approx(math.log(FIRST), abs=0.01)
