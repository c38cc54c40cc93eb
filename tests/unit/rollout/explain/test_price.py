"""The sentence about what a release cost users."""

import pytest

from rollout.explain.price import answered_requests
from rollout.judge import Pair


@pytest.mark.parametrize(
    ("failed", "saved", "says"),
    [
        (0, 0, "none of which failed"),
        (3, 0, "3 of which failed"),
        (3, 2, "3 of which failed; m:v1 answered 2 of these 3 in its place"),
        (3, 3, "3 of which failed; m:v1 answered all 3 in its place"),
        (1, 1, "1 of which failed; m:v1 answered that one in its place"),
        (3, 5, "3 of which failed; m:v1 answered all 3 in its place"),
        (0, 5, "none of which failed"),
    ],
)
def test_the_other_version_never_answered_more_than_failed(failed: int, saved: int, says: str) -> None:
    """It said "none failed; the other version answered all of these", which a reader took for all requests."""
    assert answered_requests(Pair(failed, 500), saved=saved, by="m:v1") == f"it answered 500 users' requests, {says}"
