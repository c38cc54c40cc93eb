"""The ledger is damaged while the controller runs: the controller continues and says what to do."""

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


def test_a_corrupted_ledger_does_not_end_the_controller(tmp_path: Path) -> None:
    """The canary loses its traffic although this cannot be recorded; the message names the copy to restore."""
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
    controller._ledger._db.execute("PRAGMA shrink_memory")  # it drops the pages that it had cached
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


def test_a_controller_that_cannot_read_its_ledger_removes_the_canary(tmp_path: Path) -> None:
    """After a restart it knows only the gateway's split. When the ledger can be read again, the release continues."""
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
    assert world.router.history[-1].canary_percent == 50, "the fault may be over in a moment"
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
def test_only_a_damaged_file_advises_to_restore_a_copy(name: str, is_damaged: bool) -> None:
    """Problems with the disk, a lock or a permission need another remedy."""
    error = sqlite3.OperationalError("seen")
    error.sqlite_errorname = name
    assert is_damage(error) is is_damaged


def test_a_read_only_ledger_is_not_reported_as_damaged(tmp_path: Path) -> None:
    """The message has SQLite's own words and says where to look."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    ledger._db.execute("PRAGMA query_only = 1")
    with pytest.raises(LedgerError, match="readonly") as refused:
        ledger.append()
    assert not isinstance(refused.value, LedgerDamaged)
    assert "permissions" in refused.value.do
    ledger.close()
