"""The slowest requests in the lean benchmark, and how its processes get priority."""

import os
import sys
from contextlib import suppress

import psutil
import pytest

from benchmarks.lean.lone import Turn
from benchmarks.lean.page import slowest_rows
from benchmarks.priority import ahead_of_others
from benchmarks.service.wrk import Load


def lone(p50_us: int, p99_us: int) -> Load:
    return Load(requests=1_000, duration_us=1_000_000, p50_us=p50_us, p99_us=p99_us, refused=0, broken=0)


def test_a_row_has_medians_quartiles_and_the_share_of_good_turns() -> None:
    """A turn that the machine disturbed changes median and quartiles little, and counts once."""
    turns = [Turn({"ours": lone(400, p99_us)}, is_ahead=True) for p99_us in (800, 800, 1_000, 1_200, 20_000)]
    assert [*slowest_rows(turns, {"ours": "Ours"})] == [("Ours", "400", "1,000", "2.5 (2.0-3.0)", "80%")]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has SCHED_FIFO")
def test_servers_and_client_have_priority_only_within_the_block() -> None:
    """If the system forbids it, nothing changes."""

    def policies() -> set[int]:
        return {os.sched_getscheduler(0), os.sched_getscheduler(server.pid)}

    with psutil.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as server:
        try:
            with suppress(ZeroDivisionError), ahead_of_others(server) as is_ahead:
                assert policies() == {os.SCHED_FIFO if is_ahead else os.SCHED_OTHER}
                raise ZeroDivisionError
            assert policies() == {os.SCHED_OTHER}
        finally:
            server.kill()
