"""A controller that has nothing to do: its beats cost no memory and no room in the ledger."""

import gc
import tracemalloc
from pathlib import Path

import pytest

from rollout.control.controller import Controller
from tests.support.world import Version, World

MINUTE_S = 60.0
SLACK_BYTES = 50_000  # caches of the interpreter; an object kept at each of 2,400 beats would take several times that


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ledger.db", versions={"m:v1": Version()})


def test_ticks_without_users_and_without_a_release_leave_nothing_behind(world: World, controller: Controller) -> None:
    """Half an hour of beats: as many bytes in memory after it as after ten minutes, not one more in the ledger."""
    world.rps = 0
    world.live(controller, MINUTE_S)
    ledger_bytes = sum(path.stat().st_size for path in world.path.parent.glob("ledger.db*"))
    tracemalloc.start()
    try:
        world.live(controller, 9 * MINUTE_S)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        world.live(controller, 20 * MINUTE_S)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < SLACK_BYTES
    finally:
        tracemalloc.stop()
    assert sum(path.stat().st_size for path in world.path.parent.glob("ledger.db*")) == ledger_bytes
