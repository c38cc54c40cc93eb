"""Labels and numbers as answers: which class each counts as, and when two are the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.kinds import Labels, Number, Prediction, counted_as

COLOURS = Labels(labels=("red", "green"))
PRICE = Number(tolerance=2, edges=(10, 20.5))


def test_the_most_probable_label_is_the_answer() -> None:
    """With its probability as the confidence, row by row."""
    answers = COLOURS.predictions(torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    assert answers == [Prediction("green", 0.75), Prediction("red", 1.0)]


def test_a_number_is_the_answer_without_a_confidence() -> None:
    """The one column of the output."""
    assert PRICE.predictions(torch.tensor([[1.5], [-3.0]])) == [Prediction(1.5), Prediction(-3.0)]


@pytest.mark.parametrize(
    ("number", "name"),
    [(-1e9, "below 10"), (9.99, "below 10"), (10, "10 to 20.5"), (20.5, "20.5 or more"), (1e9, "20.5 or more")],
)
def test_a_number_counts_in_its_bin(number: float, name: str) -> None:
    """A bin holds its lower edge; the first and the last are open."""
    assert (PRICE.class_of(number), name in PRICE.classes) == (name, True)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.floats(-1e9, 1e9))
def test_every_number_has_a_bin_whatever_the_edges_were_made_from(answers: list[float], number: float) -> None:
    """Ties and constants leave fewer bins, never none."""
    kind = Number.binned(answers, tolerance=0)
    assert kind.class_of(number) in kind.classes
    assert len(set(kind.classes)) == len(kind.edges) + 1 <= 10


def test_the_bins_hold_about_as_many_answers_each() -> None:
    """A tenth of 1,000 answers, give or take the rounding of the edges."""
    answers = np.random.default_rng(5).normal(150, 50, 1000)
    kind = Number.binned(answers, tolerance=1)
    sizes = [sum(kind.class_of(answer) == name for answer in answers) for name in kind.classes]
    assert (len(sizes), min(sizes) > 90, max(sizes) < 110) == (10, True, True)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [(5, 7.0, True), (5, 7.1, False), (5, "5", False), (None, 5, False), ("a", "a", False)],
)
def test_numbers_are_the_same_within_the_tolerance(one: object, other: object, is_same: bool) -> None:
    """What is no number is never the same, and never an error: another model may have answered under that id."""
    assert PRICE.is_same(one, other) is is_same


def test_labels_are_the_same_by_name() -> None:
    """Nothing is near to a name."""
    assert (COLOURS.is_same("red", "red"), COLOURS.is_same("red", "Red")) == (True, False)


def test_two_versions_count_numbers_by_one_yardstick() -> None:
    """By the other version's edges and tolerance; without one, by its own."""
    own = Number(tolerance=50, edges=(1,))
    assert (counted_as(own, PRICE.model_dump_json()), counted_as(own, None)) == (PRICE, own)


def test_no_yardstick_turns_labels_into_numbers_or_back() -> None:
    """The preflight refuses such a pair; the server itself starts all the same."""
    assert counted_as(COLOURS, PRICE.model_dump_json()) == COLOURS
    assert counted_as(PRICE, COLOURS.model_dump_json()) == PRICE


@pytest.mark.parametrize("edges", [(), (2, 1), (1, 1)])
def test_edges_that_do_not_rise_are_refused(edges: tuple[float, ...]) -> None:
    """Some bin would be empty or missing."""
    with pytest.raises(ValidationError):
        Number(tolerance=1, edges=edges)
