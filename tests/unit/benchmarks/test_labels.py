"""Simulated labels and answers lead to the conclusions on the page."""

import pytest

from benchmarks.proofs.labels import PAIRED, UNPAIRED, Kind, concluded, labels_until


@pytest.mark.parametrize("kind", [PAIRED, UNPAIRED], ids=["paired", "unpaired"])
@pytest.mark.parametrize(("right", "proof"), [((0.58, 0.96), "better"), ((0.96, 0.58), "worse")])
def test_a_large_difference_is_proven_within_a_few_hundred_labels(
    kind: Kind, right: tuple[float, float], proof: str
) -> None:
    """This holds for a better and for a worse canary."""
    said, labels = labels_until(kind, right, (1,))
    assert said == proof
    assert labels <= 400


@pytest.mark.parametrize(
    ("differing", "wrong", "conclusion"),
    [(0.43, None, "left to a person"), (0.43, 0.1, "passes"), (0.43, 0.9, "rolled back"), (0.02, None, "passes")],
)
def test_labels_decide_where_a_difference_alone_does_not(
    differing: float, wrong: float | None, conclusion: str
) -> None:
    """The same share of differing answers comes from a better model, a worse one, and one without labels."""
    assert concluded(differing, wrong, (2,))[0] == conclusion
