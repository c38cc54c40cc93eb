"""What the page about the observer computes from its rounds."""

from collections.abc import Mapping

import pytest

from benchmarks.observer.cli import ALONE, BUSY, SITUATIONS, answer_cost_us, limits, page, ratio_rows, rows
from benchmarks.observer.rig import Result
from benchmarks.service.wrk import Load

pytestmark = pytest.mark.needs("serve", "loadtest")


def result(p50_us: int, requests: int, *, observer_cpu_us: float = 0.0, seen: float = 0.0) -> Result:
    load = Load(requests=requests, duration_us=1_000_000, p50_us=p50_us, p99_us=9000, refused=0, broken=0)
    return Result(load, versions_cpu_us=50, gateway_cpu_us=50, observer_cpu_us=observer_cpu_us, seen=seen)


def one_round(slowness: int, *, observed_us: float) -> dict[str, Mapping[int, Result]]:
    """An observer adds 60 us to the time of a single request, and some CPU time, however busy the machine is."""
    found: dict[str, Mapping[int, Result]] = {}
    for one in SITUATIONS:
        has_observer = one.shown is not None
        p50_us = 200 * slowness + 60 * has_observer
        measured = result(p50_us, 4000 // slowness, observer_cpu_us=observed_us * has_observer, seen=0.5 * has_observer)
        found[one.key] = {ALONE: measured, BUSY: measured}
    return found


ROUNDS = [one_round(slowness, observed_us=25) for slowness in (1, 3, 2)]


def test_ratios_are_computed_within_a_round() -> None:
    """A slow round affects all situations alike."""
    found = list(ratio_rows(ROUNDS))
    assert len(found) == 6
    assert [row[2] for row in found] == ["1.00x (1.00x to 1.00x)"] * 6
    assert [row[3] for row in found] == ["1.25x (1.25x to 1.25x)"] * 6


def test_a_situation_without_an_observer_has_empty_cells() -> None:
    """The others show what the observer took, and how many answers it saw."""
    found = [(row[4], row[6]) for row in rows(ROUNDS)]
    assert found == [("", ""), *[("25 (25 to 25)", "50.0 % (50.0 % to 50.0 %)")] * 3] * 2


@pytest.mark.parametrize(("observed_us", "verdict"), [(1, ": kept."), (25, ": **not kept**.")])
def test_a_limit_is_reported_as_kept_or_broken(observed_us: float, verdict: str) -> None:
    alone, throughput, of_all = list(limits([one_round(1, observed_us=observed_us)]))[:3]
    assert "+0.06 ms at p50, +0.10 ms at p50 allowed: kept." in alone
    assert "+0.06 ms at p50, +0.50 ms at p50 allowed: kept." in of_all
    assert throughput.endswith(verdict)


def test_the_cost_of_an_answer_is_the_total_cost_by_the_answers_read() -> None:
    assert answer_cost_us(ROUNDS) == 50


def test_the_page_says_how_it_was_made() -> None:
    said = page(ROUNDS, "python -m benchmarks observer --write", "2 cores")
    assert "`python -m benchmarks observer --write`, on 2 cores" in said
    assert "3 rounds" in " ".join(said.split())
