"""Labels and numbers as answers: the class in which each is counted, and when two answers are the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.answer_types import Labels, Number, class_name, counted_as

COLOURS = Labels(labels=("red", "green"))
PRICE = Number(tolerance=2, edges=(10, 20.5))


@pytest.mark.parametrize(
    ("number", "name"),
    [(-1e9, "below 10"), (9.99, "below 10"), (10, "10 to 20.5"), (20.5, "20.5 or more"), (1e9, "20.5 or more")],
)
def test_a_number_counts_in_its_bin(number: float, name: str) -> None:
    """A bin includes its lower edge; the first and the last bin are open."""
    assert (PRICE.class_of(number), name in PRICE.classes) == (name, True)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.floats(-1e9, 1e9))
def test_every_number_has_a_bin_whatever_answers_the_edges_come_from(answers: list[float], number: float) -> None:
    """Ties and constant answers give fewer bins, but at least one."""
    kind = Number.binned(answers, tolerance=0)
    assert kind.class_of(number) in kind.classes
    assert len(set(kind.classes)) == len(kind.edges) + 1 <= 10


def test_each_bin_holds_about_the_same_number_of_answers() -> None:
    """Each bin holds a tenth of 1,000 answers, apart from the rounding of the edges."""
    answers = np.random.default_rng(5).normal(150, 50, 1000)
    kind = Number.binned(answers, tolerance=1)
    sizes = [sum(kind.class_of(answer) == name for answer in answers) for name in kind.classes]
    assert (len(sizes), min(sizes) > 90, max(sizes) < 110) == (10, True, True)


@pytest.mark.parametrize(
    ("low", "high"), [(101305, 101345), (-1e9 - 1, -1e9), (0.2990, 0.3001), (1e-12, 2e-12), (1e15, 1e15 + 400)]
)
def test_bins_fit_the_spread_of_the_answers_at_any_magnitude(low: float, high: float) -> None:
    """Air pressure in pascal is far from zero and varies little: each bin still holds about a tenth."""
    answers = np.random.default_rng(5).uniform(low, high, 1000)
    kind = Number.binned(answers, tolerance=0)
    sizes = [sum(kind.class_of(answer) == name for answer in answers) for name in kind.classes]
    assert (len(sizes), min(sizes) > 80, max(sizes) < 120) == (10, True, True)


@pytest.mark.parametrize("common", [0.9, 0.0, -7.0, 101325.0])
def test_no_edge_lies_on_a_common_answer(common: float) -> None:
    """Another engine computes a common answer slightly differently, and it stays in its bin."""
    answers = [common] * 500 + np.random.default_rng(5).normal(common + 2, 1, 500).tolist()
    for some in (answers, [common] * 10, [common, common + 1]):
        kind = Number.binned(some, tolerance=0)
        assert kind.class_of(common * (1 - 1e-7)) == kind.class_of(common) == kind.class_of(common * (1 + 1e-7))


def test_answers_that_differ_only_by_rounding_are_in_one_bin() -> None:
    """Two computations of 1/3 differ in the last digit and are counted in the same bin."""
    kind = Number.binned([1 / 3, 1 - 2 / 3] * 10, tolerance=0)
    assert kind.class_of(1 / 3) == kind.class_of(1 - 2 / 3)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("", '""'),
        ("line\u2028end", r"line\u2028end"),
        ("line\nend", r"line\nend"),
        ("\x85", r"\x85"),
        ("half \ud83d", r"half \ud83d"),
        ("can't tell", "can't tell"),
        ("50%s {x} #1", "50%s {x} #1"),
        ("naïve 猫 👩‍🔬", "naïve 猫 👩‍🔬"),
    ],
)
def test_a_label_is_counted_under_a_name_that_metric_stores_keep(label: str, name: str) -> None:
    """Prometheus drops an empty label value, and a metrics page is read line by line."""
    kind = Labels(labels=(label, "other"))
    assert (class_name(label), kind.class_of(label), kind.classes) == (name, name, (name, "other"))


def test_labels_with_the_same_name_are_refused_by_index() -> None:
    """The message gives their indices: two of a thousand are hard to find, and some of them look different."""
    with pytest.raises(ValidationError, match="labels 0, 2 have the same name: cat"):
        Labels(labels=("cat", "dog", "cat"))
    with pytest.raises(ValidationError, match="labels 0, 1 have the same name: "):
        Labels(labels=("\n", r"\n"))


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [(5, 7.0, True), (5, 7.1, False), (5, "5", False), (None, 5, False), ("a", "a", False)],
)
def test_numbers_are_the_same_within_the_tolerance(one: object, other: object, is_same: bool) -> None:
    """A value that is not a number is never the same and raises no error: another model may have given the answer."""
    assert PRICE.is_same(one, other) is is_same


def test_labels_are_the_same_only_if_their_names_are_equal() -> None:
    """Names have no tolerance: `red` and `Red` differ."""
    assert (COLOURS.is_same("red", "red"), COLOURS.is_same("red", "Red")) == (True, False)


def test_both_versions_count_numbers_by_the_same_edges_and_tolerance() -> None:
    """A version uses the other version's edges and tolerance, or its own if there is no other version."""
    own = Number(tolerance=50, edges=(1,))
    assert (counted_as(own, PRICE.model_dump_json()), counted_as(own, None)) == (PRICE, own)


def test_a_comparison_schema_of_the_other_kind_is_ignored() -> None:
    """The preflight refuses a pair of labels and numbers, but the server itself still starts."""
    assert counted_as(COLOURS, PRICE.model_dump_json()) == COLOURS
    assert counted_as(PRICE, COLOURS.model_dump_json()) == PRICE


@pytest.mark.parametrize("edges", [(), (2, 1), (1, 1)])
def test_edges_that_do_not_increase_are_refused(edges: tuple[float, ...]) -> None:
    """A bin would be empty or missing."""
    with pytest.raises(ValidationError):
        Number(tolerance=1, edges=edges)
