"""Remarks name what a release of a valid model could not detect."""

import pytest

from contract.answer_types import AnswerKind, Labels, Number, Prediction
from contract.model_files import Feature, Reference, Schema
from service.validation.remarks import remarks

PRESSURES = [101305 + 0.04 * i for i in range(1000)]


def found(answer: AnswerKind, labels: list[float] | list[str], confidence: float | None = 0.9) -> dict[str, str]:
    """What was seen, by signal."""
    schema = Schema(features=(Feature(name="x", minimum=0, maximum=1),), answer=answer)
    rows = [
        Reference(features=(), prediction=Prediction(label=label, confidence=confidence), truth=label)
        for label in labels
    ]
    return {remark.signal: remark.saw for remark in remarks(schema, rows)}


@pytest.mark.parametrize("edges", [(101300.0,), (101300.0, 101400.0)])
def test_a_bin_with_most_answers_is_named(edges: tuple[float, ...]) -> None:
    """A shift within this bin would not be noticed."""
    seen = found(Number(tolerance=1, edges=edges), PRESSURES)
    assert list(seen) == ["class"]
    assert "1000 of 1000 rows" in seen["class"]
    assert "101300" in seen["class"]


def test_bins_made_from_the_answers_get_no_remark() -> None:
    """This holds for answers of any magnitude."""
    assert found(Number.binned(PRESSURES, tolerance=1), PRESSURES) == {}


def test_a_tolerance_that_no_two_answers_exceed_is_named() -> None:
    """Wrong and different answers could then never be detected."""
    seen = found(Number.binned(PRESSURES, tolerance=50), PRESSURES)
    assert list(seen) == ["wrong_label", "disagreement"]
    assert "101305 to 101345, tolerance 50" in seen["disagreement"]


def test_answers_without_confidence_are_named() -> None:
    """No row could ever be below a bound."""
    assert list(found(Labels(labels=("a", "b")), ["a", "b"], confidence=None)) == ["low_confidence"]


def test_a_single_class_is_named() -> None:
    """The share of the class is always 100 %."""
    assert found(Labels(labels=("a",)), ["a", "a"]) == {"class": "one class: a"}


def test_a_common_label_gets_no_remark() -> None:
    """Most transactions are honest: that is the data, not a mistake."""
    assert found(Labels(labels=("a", "b")), ["a"] * 99 + ["b"]) == {}
