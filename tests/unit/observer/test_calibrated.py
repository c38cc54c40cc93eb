"""A difference counts against the canary only as far as it exceeds the difference of stable from itself."""

import random

import pytest

from observer.calibrated import LEAST_REPEATS, RouteComparison


def share_different(
    *, own: float, canary: float, repeats: int = 200, copies: int = 1000, seed: int = 1
) -> tuple[float, RouteComparison]:
    """The share of answers counted as different in one field with these rates; one answer in five is repeated."""
    rng, route = random.Random(seed), RouteComparison()
    counted: list[bool] = []
    for number in range(copies):
        if number % (copies // repeats) == 0:
            counted += route.repeated({"field"} if rng.random() < own else ())
        counted += route.copied({"field"} if rng.random() < canary else ())
    return sum(counted) / len(counted), route


def test_differences_count_only_after_stable_has_been_measured() -> None:
    route = RouteComparison()
    for _ in range(3):
        assert list(route.copied({"label"})) == []
    for _ in range(LEAST_REPEATS - 1):
        assert list(route.repeated(())) == []
    assert list(route.repeated(())) == [True] * 3
    assert list(route.copied(())) == [False]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.9])
def test_every_difference_counts_if_stable_never_differs_from_itself(share: float) -> None:
    seen, route = share_different(own=0.0, canary=share)
    assert seen == pytest.approx(share, abs=0.03)
    assert [field for field, _ in route.differing()] == ["field"]


@pytest.mark.parametrize("own", [0.05, 0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(20))
def test_a_canary_that_is_as_noisy_as_stable_does_not_differ(own: float, seed: int) -> None:
    """This holds for every seed. The limit of 0.05 is half of what a plan allows."""
    seen, _ = share_different(own=own, canary=own, seed=seed)
    assert seen < 0.05


@pytest.mark.parametrize(("own", "canary", "least"), [(0.1, 0.6, 0.2), (0.3, 0.9, 0.2), (0.05, 0.4, 0.1)])
def test_a_canary_differs_by_the_noise_it_has_beyond_stable(own: float, canary: float, least: float) -> None:
    """At least `least` is found, and never more than the true difference plus chance."""
    seen, route = share_different(own=own, canary=canary)
    assert least < seen < canary - own + 0.05
    assert route.own_share("field") == pytest.approx(own, abs=0.08)


def test_one_odd_answer_of_stable_does_not_hide_a_field_for_long() -> None:
    route = RouteComparison()
    list(route.repeated({"label"}))
    for _ in range(100):
        list(route.repeated(()))
    assert sum(sum(route.copied({"label"})) for _ in range(10)) == 10


def test_noise_in_one_field_does_not_hide_another() -> None:
    """The id differs in every answer; the label still counts."""
    route, counted = RouteComparison(), []
    for number in range(100):
        counted += route.repeated({"id"})
        counted += route.copied({"id", "label"} if number % 4 == 0 else {"id"})
    assert sum(counted) == pytest.approx(25, abs=2)
    assert route.differing() == [("label", 25)]


def test_any_number_of_fields_takes_bounded_memory() -> None:
    route = RouteComparison()
    for number in range(5000):
        list(route.copied({f"key-{number}"}))
        list(route.repeated({f"other-{number}"}))
    assert len(route._own) + len(route._seen) < 600
