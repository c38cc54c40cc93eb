"""Which values of a header become segments: few, and none that could be misread in a report or a metric."""

import sys
from collections.abc import Iterable
from types import FrameType

import pytest

from rollout.signals.segments import MOST_SEGMENTS, Asked, SegmentSearch, is_name


def asked(values: Iterable[str], *, caller: str = "") -> list[Asked]:
    return [Asked(value, caller) for value in values]


@pytest.mark.parametrize("value", ["acme", "42", "A", "a.b-c_d@e:f/g+h", "a" * 64])
def test_short_plain_values_become_segments(value: str) -> None:
    """Letters, digits, and the characters between them in names, mail addresses and paths."""
    assert is_name(value)


@pytest.mark.parametrize(
    "value", ["", " ", "-", "-a", "a b", "a,b", "a\n", "a\x00", 'a"', "a`", "a{b}", "täst", "a" * 65, "other", "absent"]
)
def test_other_values_never_become_segments(value: str) -> None:
    """These need quotes, are long, or are the word for all other requests."""
    assert not is_name(value)


def test_a_value_is_found_when_it_was_frequent_enough() -> None:
    """It counts over several calls, and is found only once and not if it is known."""
    search = SegmentSearch()
    assert search.found(asked(["a"] * 4 + ["b"] * 3 + ["k"] * 9), known=["k"]) == ()
    assert search.found(asked("ab"), known=["k"]) == ("a",)
    assert search.found(asked("aaaab"), known=["k", "a"]) == ("b",)


def test_the_most_frequent_values_come_first_when_there_is_little_room() -> None:
    """Values without room are never found later."""
    known = [f"k{n}" for n in range(MOST_SEGMENTS - 2)]
    search = SegmentSearch()
    assert search.found(asked("a" * 5 + "b" * 9 + "c" * 7), known=known) == ("b", "c")
    assert search.found(asked("a" * 9), known=[*known, "b", "c"]) == ()


def test_ten_thousand_unique_values_do_not_hide_a_frequent_one() -> None:
    """They take no more memory than a thousand."""
    search = SegmentSearch()
    found: list[str] = []
    for n in range(10_000):
        found += search.found(asked([f"once-{n}", *(["often"] if n % 10 == 0 else [])]), known=found)
        assert len(search._seen[""]) <= 1000
    assert found == ["often"]


def test_one_caller_gets_at_most_half_of_the_segments() -> None:
    """This holds however many values the caller invents, before or after other callers' tenants."""
    search, invented = SegmentSearch(), [f"made-up-{n}" for n in range(5000)]
    found = list(search.found(asked(5 * invented[:40], caller="rob"), known=()))
    assert len(found) == MOST_SEGMENTS // 2
    for n in range(5):
        found += search.found(asked(invented, caller="rob") + asked(["acme", "globex"], caller="ann"), known=found)
        assert len(found) == MOST_SEGMENTS // 2 + 2 * (n == 4)
    again = SegmentSearch()  # of a restarted controller
    assert len(again.found(asked(5 * invented[:40], caller="rob"), known=found)) == (MOST_SEGMENTS // 2 - 2) // 2


@pytest.mark.parametrize("caller", ["", "default"])
def test_the_owner_and_requests_without_a_key_may_get_all_segments(caller: str) -> None:
    """A front end with the owner's key brings all tenants."""
    values = [f"tenant-{n}" for n in range(30)]
    assert len(SegmentSearch().found(asked(5 * values, caller=caller), known=())) == MOST_SEGMENTS


def test_a_value_from_several_callers_is_counted_together() -> None:
    """Five answers are enough, whoever asked."""
    mixed = asked("aaa", caller="ann") + asked("aa", caller="rob") + asked("bb", caller="rob")
    assert SegmentSearch().found(mixed, known=()) == ("a",)


@pytest.mark.parametrize("sent", [5, 20, 21, 1000])
def test_a_caller_without_segments_left_cannot_hide_a_value(sent: int) -> None:
    """The caller sends it before or after its tenant's requests, more or less often."""
    search, acme = SegmentSearch(), asked(["acme"] * 20, caller="shop")
    found = search.found(asked(5 * [f"made-up-{n}" for n in range(40)], caller="evil"), known=())
    assert len(found) == MOST_SEGMENTS // 2
    assert search.found(asked(["acme"] * sent, caller="evil"), known=found) == ()
    assert search.found(asked(["acme"] * sent, caller="evil") + acme, known=found) == ("acme",)


def test_a_caller_who_gets_the_last_segment_hides_no_value() -> None:
    """After the caller's last segment, a value is found if other callers sent it often enough themselves."""
    mine, shared = [f"made-up-{n}" for n in range(40)], asked(["acme"] * 8, caller="evil")
    sent = asked(9 * mine, caller="evil") + shared + asked(["acme"] * 5, caller="shop")
    assert "acme" in SegmentSearch().found(sent, known=())
    few = asked(["acme"] * 4, caller="shop")
    assert "acme" not in SegmentSearch().found(asked(13 * mine, caller="evil") + shared + few, known=())


def test_callers_after_the_hundredth_together_get_no_more_than_one_caller() -> None:
    """They do not reduce the segments of the first hundred or of the owner."""
    search, invented = SegmentSearch(), [f"made-up-{n}" for n in range(40)]
    for n in range(100):
        search.found(asked([f"v{n}"], caller=f"key-{n}"), known=())
    found = search.found(asked(5 * invented, caller="late") + asked(5 * invented, caller="later"), known=())
    assert len(found) == MOST_SEGMENTS // 2
    owners = asked(5 * [f"tenant-{n}" for n in range(30)], caller="default")
    assert len(search.found(owners, known=found)) == MOST_SEGMENTS // 2


def operations(search: SegmentSearch, values: list[Asked], *, known: Iterable[str] = ()) -> int:
    """The number of function calls and generator resumptions needed to find what is new in these values."""
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


def test_finding_segments_does_not_cost_more_with_earlier_values() -> None:
    """With nothing new or no room it costs nothing; for a new value, a few operations per caller."""
    search = SegmentSearch()
    for caller in range(100):
        search.found(asked([f"{caller}-{n}" for n in range(1000)], caller=f"key-{caller}"), known=())
    assert operations(search, []) < 10
    assert operations(search, asked(["new"], caller="key-1")) < 1000
    full = [f"k{n}" for n in range(MOST_SEGMENTS)]
    assert operations(search, asked(["new"], caller="key-1"), known=full) < 10


def test_any_number_of_callers_takes_bounded_memory() -> None:
    """Callers after the hundredth are counted together."""
    search = SegmentSearch()
    for n in range(500):
        search.found(asked("a", caller=f"key-{n}"), known=["a"])
        search.found(asked([f"v{n}"], caller=f"key-{n}"), known=())
    assert len(search._seen) <= 101
