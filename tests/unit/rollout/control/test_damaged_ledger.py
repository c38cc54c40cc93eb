"""A ledger that is damaged under a running controller: it goes on, and says what to do."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rollout.control.commands import RollbackNow, SetStable, StartRelease
from rollout.control.trouble import RETURNED_AFTER
from rollout.errors import LedgerDamaged, LedgerError
from rollout.ledger import copies
from rollout.ledger.check import check
from rollout.ledger.ledger import Ledger, is_damage
from rollout.spec import RolloutSpec
from tests.support.world import Version, World


def test_garbage_under_a_running_controller_ends_nothing(tmp_path: Path) -> None:
    """The canary is taken back although nobody can write it down; the trouble names the copy to restore."""
    path = tmp_path / "ledger.db"
    world = World(path, versions={"m:v1": Version(), "m:v2": Version()})
    controller = world.controller()
    controller.execute(SetStable("m:v1", "ann"))
    controller.execute(StartRelease("m:v2", RolloutSpec(steps=(5, 100)), "ann"))
    world.live(controller, 5)
    copy = copies.scheduled_copy(path, keep=1, now_s=world.now_s)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(b"\xff" * path.stat().st_size)
    controller._ledger._db.execute("PRAGMA shrink_memory")  # it forgets the pages that it had read
    controller.execute(RollbackNow("ann", "wrong answers"))
    for _ in range(5):
        controller.turn(wait_s=0)
    split = world.router.observed()
    assert split
    assert (split.stable, split.canary_percent) == ("m:v1", 0)
    (trouble, *_) = controller.snapshot.troubles
    assert "file is not a database" in trouble
    assert f"kanaria ledger restore {copy.path}`" in trouble
    controller.close()
    with pytest.raises(LedgerDamaged):
        check(path)


def test_a_controller_that_cannot_read_its_ledger_takes_the_canary_back(tmp_path: Path) -> None:
    """Restarted, it knows only what the gateway says. With a ledger that can be read the release goes on."""
    path = tmp_path / "ledger.db"
    world = World(path, versions={"m:v1": Version(), "m:v2": Version()})
    controller = world.controller()
    controller.execute(SetStable("m:v1", "ann"))
    controller.execute(StartRelease("m:v2", RolloutSpec(steps=(50, 100)), "ann"))
    world.live(controller, 5)
    controller.close()
    whole = path.read_bytes()
    path.write_bytes(b"\xff" * len(whole))
    again = world.unstarted_controller()
    for _ in range(RETURNED_AFTER - 1):
        again.turn(wait_s=0)
    assert world.router.history[-1].canary_percent == 50, "it may be over in a moment"
    for _ in range(3):
        again.turn(wait_s=0)
    assert (world.router.history[-1].stable.tag, world.router.history[-1].canary_percent) == ("m:v1", 0)
    shifts = len(world.router.history)
    path.write_bytes(whole)
    again.turn(wait_s=0)
    assert [split.canary_percent for split in world.router.history[shifts:]] == [50]
    again.close()


@pytest.mark.parametrize(
    ("name", "is_damaged"),
    [
        ("SQLITE_CORRUPT", True),
        ("SQLITE_CORRUPT_INDEX", True),
        ("SQLITE_NOTADB", True),
        ("SQLITE_IOERR_SHORT_READ", True),
        ("SQLITE_IOERR_READ", False),
        ("SQLITE_CANTOPEN", False),
        ("SQLITE_READONLY_DBMOVED", False),
        ("SQLITE_FULL", False),
        ("SQLITE_BUSY", False),
    ],
)
def test_only_a_damaged_file_asks_for_a_copy(name: str, is_damaged: bool) -> None:
    """A disk, a lock or a permission needs another remedy."""
    error = sqlite3.OperationalError("seen")
    error.sqlite_errorname = name
    assert is_damage(error) is is_damaged


def test_a_ledger_that_may_only_be_read_is_no_damage(tmp_path: Path) -> None:
    """SQLite's own words for it, and where to look."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    ledger._db.execute("PRAGMA query_only = 1")
    with pytest.raises(LedgerError, match="readonly") as refused:
        ledger.append()
    assert not isinstance(refused.value, LedgerDamaged)
    assert "permissions" in refused.value.do
    ledger.close()
