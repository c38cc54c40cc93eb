"""What counts as drift: the right columns, no false alarm, and no finding when there are too few rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from monitoring.drift.column import Column, difference, effective_rows
from monitoring.drift.rule import ERROR, Rule, find

RULE = Rule()
COLUMNS = 16


def column(values: object, request: object = None) -> Column:
    array = np.asarray(values)
    array = array.astype(np.float64) if array.dtype.kind in "if" else array.astype(np.str_)
    return Column(array, np.arange(len(array)) if request is None else np.asarray(request))


def table(rng: np.random.Generator, rows: int, *, shift: float = 0.0, per_request: int = 1) -> dict[str, Column]:
    """Columns of normal numbers, the first one shifted; rows of one request share half their variance."""
    request = np.arange(rows) // per_request
    shared = rng.normal(size=(request[-1] + 1, COLUMNS))[request] if per_request > 1 else 0.0
    numbers = (shared + rng.normal(size=(rows, COLUMNS))) / (1 if per_request == 1 else np.sqrt(2))
    numbers[:, 0] += shift
    return {f"f{i}": Column(numbers[:, i], request) for i in range(COLUMNS)} | {
        "label": Column(rng.choice(list("abc"), rows), request)
    }


def drifted(reference: dict[str, Column], current: dict[str, Column]) -> list[str]:
    return [finding.column for finding in find(reference, current, RULE) if finding.has_drifted]


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    """Only which rows belong to the same request does."""
    rng = np.random.default_rng(seed)
    before, after = table(rng, 300), table(rng, 300, shift=0.3, per_request=3)
    order = rng.permutation(300)
    shuffled = {name: Column(one.values[order], one.request[order]) for name, one in after.items()}
    found, again = find(before, after, RULE), find(before, shuffled, RULE)
    assert [(one.column, one.has_drifted) for one in found] == [(one.column, one.has_drifted) for one in again]
    assert np.allclose([(one.score, one.p_value) for one in found], [(one.score, one.p_value) for one in again])


@pytest.mark.exhaustive
@pytest.mark.parametrize("per_request", [1, 16])
def test_without_a_change_at_most_alpha_of_the_reports_find_drift(per_request: int) -> None:
    """300 reports over 17 columns, without a threshold on the distance, so that chance alone decides; alpha is 5 %.

    This holds even if the 16 rows of each request are half alike: taken as independent, they would cause a false alarm
    in most reports.
    """
    rng, rule = np.random.default_rng(7), Rule(threshold=0.0, alpha=0.05)
    alarms = sum(
        any(one.has_drifted for one in find(table(rng, 600), table(rng, 640, per_request=per_request), rule))
        for _ in range(300)
    )
    assert alarms <= 25  # at most 15 are expected; more than 25 have a probability under 1 %


def test_a_known_shift_is_found_in_its_column_alone() -> None:
    """Half a standard deviation moves a fifth of the rows past the middle."""
    rng = np.random.default_rng(1)
    worst = find(table(rng, 2000), table(rng, 2000, shift=0.5), RULE)
    assert [(one.column, one.direction) for one in worst if one.has_drifted] == [("f0", "up")]
    assert worst[0].score == pytest.approx(0.197, abs=0.04)


def test_a_shift_too_small_to_matter_is_not_drift_however_significant() -> None:
    """With 200,000 rows even a tiny difference is significant."""
    rng = np.random.default_rng(2)
    before, after = column(rng.normal(size=200_000)), column(rng.normal(0.05, size=200_000))
    (found,) = find({"f": before}, {"f": after}, RULE)
    assert (found.p_value < 1e-6, found.has_drifted) == (True, False)


def test_a_new_label_is_named_with_its_shares() -> None:
    """Words are compared by the share of rows that moved."""
    before, after = column(["a"] * 500 + ["b"] * 500), column(["a"] * 500 + ["b"] * 200 + ["c"] * 300)
    (found,) = find({"label": before}, {"label": after}, RULE)
    assert (found.has_drifted, found.score, found.says) == (True, pytest.approx(0.3), "`b` 50% -> 20%")


def test_fewer_mistakes_are_not_drift() -> None:
    """More mistakes are; both are reported with their direction."""
    few, many = column([0.0] * 900 + [1.0] * 100), column([0.0] * 700 + [1.0] * 300)
    better, worse = (find({ERROR: a}, {ERROR: b}, RULE)[0] for a, b in ((many, few), (few, many)))
    assert (better.has_drifted, better.direction, worse.has_drifted, worse.direction) == (False, "down", True, "up")


@pytest.mark.parametrize(("rows", "per_request"), [(99, 1), (2000, 200)])
def test_too_few_rows_or_requests_give_no_finding(rows: int, per_request: int) -> None:
    """No finding, rather than the finding that nothing changed."""
    rng = np.random.default_rng(3)
    assert find(table(rng, 500), table(rng, rows, shift=5, per_request=per_request), RULE) == ()


def test_a_constant_column_is_judged_like_any_other() -> None:
    """A pixel that was always 0 has no spread to measure a shift in."""
    zeros, ones = column(np.zeros(500)), column(np.repeat([0.0, 3.0], [400, 100]))
    assert drifted({"f": zeros}, {"f": ones}) == ["f"]
    assert drifted({"f": zeros}, {"f": column(np.zeros(300))}) == []


@pytest.mark.parametrize(
    ("before", "after", "has_drifted"),
    [
        ([0.9], [0.89999998], False),
        ([0.9], [0.91], True),
        ([101325.0], [101325.01], False),
        ([101325.0], [101326.9], True),
        ([0.0], [1e-12], False),
        ([0.0], [1e-3], True),
        ([0.0, 1e-12], [0.0, 2e-12], True),
        ([0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1 + 1e-7], False),
        ([1.7e9, 1.7e9 + 1000], [1.7e9 + 1, 1.7e9 + 1001], False),
    ],
)
def test_numbers_that_hardly_moved_are_not_drift(before: list[float], after: list[float], has_drifted: bool) -> None:
    """Another build computes 0.89999998 for 0.9 in every row. What counts as little depends on the column's spread."""
    reference, current = {"f": column(before * 400)}, {"f": column(after * 400)}
    (found,) = find(reference, current, RULE)
    assert (found.has_drifted, found.score >= RULE.threshold) == (has_drifted, has_drifted)


@pytest.mark.parametrize(
    ("values", "independent"),
    [
        (np.repeat(np.arange(50.0), 20), 50),  # the rows of a request are copies
        (np.tile(np.arange(20.0), 50), 1000),  # each request holds every value
    ],
)
def test_the_effective_number_of_rows_depends_on_how_alike_rows_of_a_request_are(
    values: NDArray[np.float64], independent: int
) -> None:
    """It is between one row per request and all rows, for numbers and for words."""
    request = np.arange(1000) // 20
    for own in (column(values, request), column(values.astype(int).astype(str), request)):
        assert effective_rows(own) == pytest.approx(independent)


def test_a_rare_word_alone_proves_nothing() -> None:
    """A single row with a new word would look significant to a test that does not combine rare words."""
    before, after = column(["a"] * 1000), column(["a"] * 299 + ["new"])
    assert difference(before, after).p_value > 0.01


def test_all_reports_about_a_release_share_one_alpha() -> None:
    """However many reports a release gets, the probability of a false alarm is within alpha."""
    alphas = [RULE.for_report(number).alpha for number in range(1, 1000)]
    assert (sum(alphas) <= RULE.alpha, alphas[0]) == (True, RULE.alpha / 2)
