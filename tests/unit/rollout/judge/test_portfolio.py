"""How signals share the stake: wealth moves between them, and their sum never grows without evidence."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.judge.logarithms import log_sum
from rollout.judge.portfolio import Portfolio

WEIGHTS = {"errors": 0.4, "latency": 0.15, "class": 0.15, "unused": 0.3, "watched": 0.0}


def portfolio_of(*signals: str, log_e: dict[str, float] | None = None) -> Portfolio:
    portfolio = Portfolio(WEIGHTS)
    for signal in signals:
        portfolio.admit([signal], signal.partition(":")[0], lambda present: (log_e or {}).get(present, 0.0))
    return portfolio


def share(portfolio: Portfolio, signal: str) -> float:
    return math.exp(portfolio.log_share(signal))


def test_families_share_by_weight_and_signals_of_a_family_share_equally() -> None:
    """Families that never appear have no share, so they do not dilute the others."""
    portfolio = portfolio_of("class:0", "errors", "latency:50", "latency:100", "class:1", "class:2")
    assert share(portfolio, "errors") == pytest.approx(0.4 / 0.7)
    assert share(portfolio, "latency:50") == share(portfolio, "latency:100") == pytest.approx(0.15 / 0.7 / 2)
    assert share(portfolio, "class:0") == pytest.approx(share(portfolio, "class:2")) == pytest.approx(0.15 / 0.7 / 3)


def test_a_family_of_weight_zero_has_no_share() -> None:
    """Its log share is minus infinity; the others share as if it were absent."""
    portfolio = portfolio_of("watched", "errors")
    assert (portfolio.log_share("watched"), share(portfolio, "errors")) == (-math.inf, 1.0)


@given(
    late=st.sampled_from(["latency:9", "class:7", "errors:other"]),
    log_e=st.fixed_dictionaries({name: st.floats(-30, 30) for name in ("errors", "latency:1", "latency:2")}),
)
def test_a_new_signal_gets_its_share_from_the_others(late: str, log_e: dict[str, float]) -> None:
    """Whatever was won or lost before, its arrival does not change the combined evidence."""
    present = list(log_e)
    portfolio = portfolio_of(*present)
    before = log_sum(portfolio.log_share(name) + log_e[name] for name in present)
    portfolio.admit([late], late.partition(":")[0], log_e.__getitem__)
    after = log_sum(portfolio.log_share(name) + (log_e | {late: 0.0})[name] for name in [*present, late])
    assert after == pytest.approx(before, abs=1e-9)


@given(st.permutations(["errors", "latency:1", "latency:2", "class:a", "class:b"]))
def test_the_order_of_signals_within_a_tick_does_not_matter(order: list[str]) -> None:
    """Shares depend on which signals are present."""
    usual, other = portfolio_of(*sorted(order)), portfolio_of(*order)
    assert [usual.log_share(name) for name in order] == pytest.approx([other.log_share(name) for name in order])


@given(
    present=st.lists(st.sampled_from(["errors", "latency:1", "class:a"]), unique=True),
    new=st.integers(1, 5),
    log_e=st.fixed_dictionaries({name: st.floats(-30, 30) for name in ("errors", "latency:1", "class:a")}),
)
def test_signals_admitted_together_get_the_shares_of_one_after_another(
    present: list[str], new: int, log_e: dict[str, float]
) -> None:
    """The evidence is the same, and admitting thousands of classes stays fast."""
    names = [f"class:{number}" for number in range(new)]
    at_once, in_turn = portfolio_of(*present), portfolio_of(*present)
    at_once.admit(names, "class", log_e.__getitem__)
    for name in names:
        in_turn.admit([name], "class", lambda known: log_e.get(known, 0.0))
    for name in (*present, *names):
        assert at_once.log_share(name) == pytest.approx(in_turn.log_share(name), abs=1e-9)
