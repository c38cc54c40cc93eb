"""Which values of a header become segments: few, and none that a reader or a metric could mistake."""

import pytest

from rollout.signals.segments import MOST_SEGMENTS, SegmentSearch, is_name


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
    assert search.found(["a"] * 4 + ["b"] * 3 + ["k"] * 9, known=["k"]) == ()
    assert search.found(["a", "b"], known=["k"]) == ("a",)
    assert search.found(["a"] * 4 + ["b"], known=["k", "a"]) == ("b",)


def test_the_most_frequent_come_first_where_room_is_for_few() -> None:
    """Those for which there is no room stay out for good."""
    known = [f"k{n}" for n in range(MOST_SEGMENTS - 2)]
    search = SegmentSearch()
    assert search.found("a" * 5 + "b" * 9 + "c" * 7, known=known) == ("b", "c")
    assert search.found("a" * 9, known=[*known, "b", "c"]) == ()


def test_ten_thousand_values_that_come_once_hide_none_that_comes_often() -> None:
    """And take no more memory than a thousand."""
    search = SegmentSearch()
    found: list[str] = []
    for n in range(10_000):
        found += search.found([f"once-{n}", *(["often"] if n % 10 == 0 else [])], known=found)
        assert len(search._seen) <= 1000
    assert found == ["often"]
