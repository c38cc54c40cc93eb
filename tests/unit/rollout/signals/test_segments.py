"""Which values of a header become segments: few, and none that a reader or a metric could mistake."""

import sys
from collections.abc import Iterable
from types import FrameType

import pytest

from rollout.signals.segments import MOST_SEGMENTS, Asked, SegmentSearch, is_name


def asked(values: Iterable[str], *, caller: str = "") -> list[Asked]:
    return [Asked(value, caller) for value in values]


@pytest.mark.parametrize("value", ["acme", "42", "A", "a.b-c_d@e:f/g+h", "a" * 64])
def test_short_plain_values_are_names(value: str) -> None:
    """Letters, digits and what is between them in names, mail addresses and paths."""
    assert is_name(value)


@pytest.mark.parametrize(
    "value", ["", " ", "-", "-a", "a b", "a,b", "a\n", "a\x00", 'a"', "a`", "a{b}", "täst", "a" * 65, "other", "absent"]
)
def test_all_else_is_none(value: str) -> None:
    """Nothing that needs quotes, is long, or is the word for the rest."""
    assert not is_name(value)


def test_a_value_is_found_when_it_came_often_enough() -> None:
    """Over several calls; it is not found a second time, nor one that is known."""
    search = SegmentSearch()
    assert search.found(asked(["a"] * 4 + ["b"] * 3 + ["k"] * 9), known=["k"]) == ()
    assert search.found(asked("ab"), known=["k"]) == ("a",)
    assert search.found(asked("aaaab"), known=["k", "a"]) == ("b",)


def test_the_most_frequent_come_first_where_room_is_for_few() -> None:
    """Those for which there is no room stay out for good."""
    known = [f"k{n}" for n in range(MOST_SEGMENTS - 2)]
    search = SegmentSearch()
    assert search.found(asked("a" * 5 + "b" * 9 + "c" * 7), known=known) == ("b", "c")
    assert search.found(asked("a" * 9), known=[*known, "b", "c"]) == ()


def test_ten_thousand_values_that_come_once_hide_none_that_comes_often() -> None:
    """And take no more memory than a thousand."""
    search = SegmentSearch()
    found: list[str] = []
    for n in range(10_000):
        found += search.found(asked([f"once-{n}", *(["often"] if n % 10 == 0 else [])]), known=found)
        assert len(search._seen[""]) <= 1000
    assert found == ["often"]


def test_one_caller_takes_at_most_half_of_the_places() -> None:
    """However many values he invents, before or after the tenants of others come."""
    search, invented = SegmentSearch(), [f"made-up-{n}" for n in range(5000)]
    found = list(search.found(asked(5 * invented[:40], caller="rob"), known=()))
    assert len(found) == MOST_SEGMENTS // 2
    for n in range(5):
        found += search.found(asked(invented, caller="rob") + asked(["acme", "globex"], caller="ann"), known=found)
        assert len(found) == MOST_SEGMENTS // 2 + 2 * (n == 4)
    again = SegmentSearch()  # of a controller that was started again
    assert len(again.found(asked(5 * invented[:40], caller="rob"), known=found)) == (MOST_SEGMENTS // 2 - 2) // 2


@pytest.mark.parametrize("caller", ["", "default"])
def test_the_owner_and_who_has_no_key_may_take_all_places(caller: str) -> None:
    """A front end with the owner's key brings all tenants."""
    values = [f"tenant-{n}" for n in range(30)]
    assert len(SegmentSearch().found(asked(5 * values, caller=caller), known=())) == MOST_SEGMENTS


def test_a_value_of_several_callers_is_counted_as_one() -> None:
    """Five answers, whoever asked."""
    mixed = asked("aaa", caller="ann") + asked("aa", caller="rob") + asked("bb", caller="rob")
    assert SegmentSearch().found(mixed, known=()) == ("a",)


@pytest.mark.parametrize("sent", [5, 20, 21, 1000])
def test_a_caller_without_places_hides_no_value_by_sending_it(sent: int) -> None:
    """Before or after its tenant's requests, more often or less often than they come."""
    search, acme = SegmentSearch(), asked(["acme"] * 20, caller="shop")
    found = search.found(asked(5 * [f"made-up-{n}" for n in range(40)], caller="evil"), known=())
    assert len(found) == MOST_SEGMENTS // 2
    assert search.found(asked(["acme"] * sent, caller="evil"), known=found) == ()
    assert search.found(asked(["acme"] * sent, caller="evil") + acme, known=found) == ("acme",)


def test_who_takes_his_last_place_hides_no_value_of_that_moment() -> None:
    """Values that he sent more often than others come to their turn after his last place, and others pay for them."""
    mine, shared = [f"made-up-{n}" for n in range(40)], asked(["acme"] * 8, caller="evil")
    sent = asked(9 * mine, caller="evil") + shared + asked(["acme"] * 5, caller="shop")
    assert "acme" in SegmentSearch().found(sent, known=())
    few = asked(["acme"] * 4, caller="shop")
    assert "acme" not in SegmentSearch().found(asked(13 * mine, caller="evil") + shared + few, known=())


def test_callers_beyond_the_hundredth_take_no_more_than_one() -> None:
    """Together; who has a place among the first hundred gets none of theirs, and the owner none too few."""
    search, invented = SegmentSearch(), [f"made-up-{n}" for n in range(40)]
    for n in range(100):
        search.found(asked([f"v{n}"], caller=f"key-{n}"), known=())
    found = search.found(asked(5 * invented, caller="late") + asked(5 * invented, caller="later"), known=())
    assert len(found) == MOST_SEGMENTS // 2
    owners = asked(5 * [f"tenant-{n}" for n in range(30)], caller="default")
    assert len(search.found(owners, known=found)) == MOST_SEGMENTS // 2


def operations(search: SegmentSearch, values: list[Asked], *, known: Iterable[str] = ()) -> int:
    """How many functions are called, and generators resumed, to find what is new in these."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        search.found(values, known=tuple(known))
    finally:
        sys.setprofile(None)
    return calls


def test_what_came_before_costs_nothing() -> None:
    """Not where nothing is new, nor where no place is left; a few operations a caller where one value is."""
    search = SegmentSearch()
    for caller in range(100):
        search.found(asked([f"{caller}-{n}" for n in range(1000)], caller=f"key-{caller}"), known=())
    assert operations(search, []) < 10
    assert operations(search, asked(["new"], caller="key-1")) < 1000
    full = [f"k{n}" for n in range(MOST_SEGMENTS)]
    assert operations(search, asked(["new"], caller="key-1"), known=full) < 10


def test_callers_without_end_take_bounded_memory() -> None:
    """From the hundredth on they are counted together."""
    search = SegmentSearch()
    for n in range(500):
        search.found(asked("a", caller=f"key-{n}"), known=["a"])
        search.found(asked([f"v{n}"], caller=f"key-{n}"), known=())
    assert len(search._seen) <= 101
