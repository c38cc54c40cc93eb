"""How many requests are sent to both versions at each weight."""

import pytest

from rollout.compare import canary_load, copied


@pytest.mark.parametrize("compare", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("weight", [0.0001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.95, 0.9999])
def test_no_version_gets_more_copies_than_requests_of_its_own(compare: float, weight: float) -> None:
    """Nor does it get more than the plan asks for; in at least one direction it is exactly that."""
    shares = copied(compare, weight)
    of_stable, of_canary = (1 - weight) * shares.of_stable, weight * shares.of_canary
    assert of_stable <= weight * (1 + 1e-9)
    assert of_canary <= (1 - weight) * (1 + 1e-9)
    assert max(shares.of_stable, shares.of_canary) == compare
    assert canary_load(compare, weight) <= 1 + 1e-9


@pytest.mark.parametrize(("weight", "load"), [(0.01, 0.02), (0.1, 0.19), (0.5, 0.55), (0.95, 0.955)])
def test_the_load_of_the_canary_when_a_tenth_is_compared(weight: float, load: float) -> None:
    assert canary_load(0.1, weight) == pytest.approx(load)
