"""A ledger on a full disk, without its folder or with a locked file refuses a write as a whole and stays usable."""

import os
import sqlite3
from pathlib import Path

import pytest

from rollout.control.timing import BEAT_S
from rollout.errors import LedgerError
from rollout.ledger import events as e
from rollout.ledger.kept import KeptDecisions
from rollout.ledger.ledger import Ledger
from rollout.ledger.reserve import open_ledger, reserve_of
from tests.support.small_disk import SmallDisk

BEGAN = e.StableSet(at_s=1.0, tag="m:v1")
ROLLED_BACK = e.RolledBack(at_s=2.0, release=1, signal="errors", reason="5 % of requests fail")


def note(size: int) -> e.Noted:
    return e.Noted(at_s=2.0, topic="fleet", text=os.urandom(size).hex())


def is_taken(ledger: Ledger, event: e.Event) -> bool:
    try:
        ledger.append(event)
    except LedgerError:
        return False
    return True


@pytest.mark.parametrize("size", [1, 3_000, 20_000, 300_000])
def test_a_disk_that_fills_up_during_a_write_leaves_the_ledger_consistent(small_disk: SmallDisk, size: int) -> None:
    """This holds at any point, including the commit; once there is room, the next write succeeds."""
    ledger = Ledger(small_disk.folder / "ledger.db")
    ledger.append(BEGAN)
    small_disk.fill()
    written = 1
    while is_taken(ledger, note(size)):
        written += 1
    assert not is_taken(ledger, note(300_000))
    assert len(list(ledger.events())) == written
    small_disk.free()
    ledger.append(note(size))
    assert len(list(ledger.events())) == written + 1
    ledger.close()


def test_a_ledger_on_a_full_disk_opens_with_its_reserve(small_disk: SmallDisk) -> None:
    """After a clean stop SQLite has to create its files again, even to read."""
    path = small_disk.folder / "ledger.db"
    ledger = Ledger(path)
    ledger.append(BEGAN)
    ledger.close()
    assert reserve_of(path).take()
    small_disk.fill()
    with pytest.raises(LedgerError):
        Ledger(path)
    ledger = open_ledger(path)
    assert list(ledger.events()) == [BEGAN]
    ledger.append(note(1))
    ledger.close()


def test_the_writer_waits_only_briefly_for_a_lock(tmp_path: Path) -> None:
    """A beat of the control loop takes half a second; the writer gives up sooner."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    ledger.append(BEGAN)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="locked"):
        ledger.append(note(1))
    (wait_ms,) = ledger._db.execute("PRAGMA busy_timeout").fetchone()
    assert wait_ms < 1000 * BEAT_S
    other.close()
    ledger.append(note(1))
    ledger.close()


def test_a_read_only_disk_is_explained(small_disk: SmallDisk) -> None:
    """The file system was mounted read-only after a disk fault."""
    ledger = Ledger(small_disk.folder / "ledger.db")
    ledger.append(BEGAN)
    ledger.close()
    small_disk.remount("ro")
    with pytest.raises(LedgerError):
        open_ledger(small_disk.folder / "ledger.db")


def test_decisions_are_kept_beside_the_ledger_on_a_full_disk(small_disk: SmallDisk) -> None:
    """Their room was reserved. Only decisions are kept, and none is kept twice."""
    path = small_disk.folder / "ledger.db"
    kept = KeptDecisions(path)
    small_disk.fill()
    kept.keep([note(1), ROLLED_BACK])
    kept.keep([ROLLED_BACK])
    assert KeptDecisions(path).read() == (ROLLED_BACK,)
    kept.clear()
    assert KeptDecisions(path).read() == ()


def test_a_decision_that_cannot_be_kept_anywhere_is_not_an_error(small_disk: SmallDisk) -> None:
    """Traffic still returns to stable."""
    kept = KeptDecisions(small_disk.folder / "ledger.db")
    small_disk.remount("ro")
    kept.keep([ROLLED_BACK])
