"""What the page about the observer makes of its rounds."""

from collections.abc import Mapping

import pytest

from benchmarks.observer.cli import ALONE, BUSY, SITUATIONS, page, ratio_rows, rows
from benchmarks.observer.rig import Result
from benchmarks.service.wrk import Load

pytestmark = pytest.mark.needs("serve", "loadtest")


def result(p50_us: int, requests: int, *, observer_cpu_us: float = 0.0, seen: float = 0.0) -> Result:
    load = Load(requests=requests, duration_us=1_000_000, p50_us=p50_us, p99_us=9000, refused=0, broken=0)
    return Result(load, gateway_cpu_us=p50_us / 10, observer_cpu_us=observer_cpu_us, seen=seen)


def one_round(slowness: int) -> dict[str, Mapping[int, Result]]:
    """An observer adds a tenth to the time of a lone request, however busy the machine is."""
    found: dict[str, Mapping[int, Result]] = {}
    for one in SITUATIONS:
        p50_us = (1100 if one.has_observer else 1000) * slowness
        measured = result(p50_us, 4000 // slowness, observer_cpu_us=50.0 * one.has_observer, seen=0.5)
        found[one.key] = {ALONE: measured, BUSY: measured}
    return found


ROUNDS = [one_round(1), one_round(3), one_round(2)]


def test_ratios_are_taken_within_a_round() -> None:
    """A slow round moves all situations alike."""
    assert [row[1] for row in ratio_rows(ROUNDS)] == ["1.10x (1.10x to 1.10x)"] * 2
    assert [row[2] for row in ratio_rows(ROUNDS)] == ["1.00x (1.00x to 1.00x)"] * 2


def test_what_there_is_no_observer_for_stays_empty() -> None:
    """And the others say what it took, and how many answers it saw."""
    found = [row[4:] for row in rows(ROUNDS)]
    assert found == [("", ""), ("50 (50 to 50)", "50 % (50 % to 50 %)")] * 2


def test_the_page_says_how_it_was_made() -> None:
    said = page(ROUNDS, "python -m benchmarks observer --write", "2 cores")
    assert "`python -m benchmarks observer --write`, on 2 cores" in said
    assert "3 rounds" in " ".join(said.split())
