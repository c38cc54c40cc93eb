"""Simulated labels and answers come out as the numbers say that they should."""

import pytest

from benchmarks.proofs.labels import PAIRED, UNPAIRED, Kind, concluded, labels_until


@pytest.mark.parametrize("kind", [PAIRED, UNPAIRED], ids=["paired", "unpaired"])
@pytest.mark.parametrize(("right", "proof"), [((0.58, 0.96), "better"), ((0.96, 0.58), "worse")])
def test_a_large_difference_is_proven_within_a_few_hundred_labels(
    kind: Kind, right: tuple[float, float], proof: str
) -> None:
    """In both directions."""
    said, labels = labels_until(kind, right, (1,))
    assert said == proof
    assert labels <= 400


@pytest.mark.parametrize(
    ("differing", "wrong", "conclusion"),
    [(0.43, None, "left to a person"), (0.43, 0.1, "passes"), (0.43, 0.9, "rolled back"), (0.02, None, "passes")],
)
def test_labels_decide_what_a_difference_alone_does_not(differing: float, wrong: float | None, conclusion: str) -> None:
    """The same share of other answers, from a better model, a worse one, and one that nobody can tell."""
    assert concluded(differing, wrong, (2,))[0] == conclusion
