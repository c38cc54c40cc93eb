"""A ledger's schema has a number; an older ledger is upgraded without changing its events."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.migrations import NUMBER, read_event
from tests.support import ledger_schema
from tests.support.old_ledgers import restored

NOTE = e.Noted(at_s=1_900_000_000.0, topic="fleet", text="written by this version")
HOW = """
The shape of what the ledger stores has changed. Ledgers of the old shape must still open:
append a migration to rollout/ledger/migrations.py (their count is the number), keep a ledger of the old shape in
tests/data/, and run `python -m tests.support.ledger_schema`. If every event of the old shape is still read correctly
as it is, the last step alone is enough.
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A ledger with schema number 0."""
    return restored("ledger-0", tmp_path / "ledger.db")


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def read(path: Path) -> list[e.Event]:
    ledger = Ledger(path, read_only=True)
    try:
        return list(ledger.events())
    finally:
        ledger.close()


def test_the_schema_of_events_is_the_one_of_its_number() -> None:
    """This fails when an event changes, and says what old ledgers need."""
    assert ledger_schema.kept() == ledger_schema.present(), HOW


def test_a_new_ledger_has_the_schema_number_of_this_version(tmp_path: Path) -> None:
    """The file and every event in it have it."""
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append(NOTE)
    ledger.close()
    assert query(tmp_path / "ledger.db", "PRAGMA user_version") == [(NUMBER,)]
    assert query(tmp_path / "ledger.db", "SELECT schema FROM events") == [(NUMBER,)]


def test_reading_an_old_ledger_changes_nothing_in_it(old: Path) -> None:
    """`kanaria why` and `report` need no controller and no write permission."""
    before = old.read_bytes()
    assert len(read(old)) == len(query(old, "SELECT seq FROM events"))
    assert old.read_bytes() == before


def test_an_upgrade_rewrites_no_event(old: Path) -> None:
    """It is an audit record: old events stay byte for byte, and new events have the new number."""
    before, events = query(old, "SELECT seq, at_s, release, kind, data FROM events"), read(old)
    ledger = Ledger(old)
    ledger.append(NOTE)
    ledger.close()
    assert query(old, "PRAGMA user_version") == [(NUMBER,)]
    assert query(old, "SELECT seq, at_s, release, kind, data FROM events WHERE schema = 0") == before
    assert query(old, "SELECT kind, schema FROM events WHERE schema > 0") == [("noted", NUMBER)]
    assert read(old) == [*events, NOTE]


@pytest.mark.parametrize("statement", ["UPDATE events SET schema = 1", "DELETE FROM events"])
def test_an_upgraded_ledger_is_still_append_only(old: Path, statement: str) -> None:
    """The triggers stay."""
    Ledger(old).close()
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        query(old, statement)


def test_old_events_can_be_written_by_this_version(old: Path) -> None:
    """For every kind of event the current schema keeps all of the upgraded event."""
    events = read(old)
    assert {event.kind for event in events} >= {"ticked", "rolled_back", "aborted", "promoted", "drift_measured"}
    assert [read_event(event.stored(), NUMBER) for event in events] == events


def test_an_old_rollback_names_the_signal_that_failed(old: Path) -> None:
    """The signal was stored beside the evidence and is now part of it; a deadline or a person is not a signal."""
    failed = [event.evidence.failed_signal for event in read(old) if isinstance(event, e.RolledBack) if event.evidence]
    assert failed == ["class:3", "watched_errors", None]


KILLED_WHEN = """
import os, signal, sqlite3, sys
from pathlib import Path
from rollout.ledger import ledger

class Connection(sqlite3.Connection):
    def execute(self, sql, *values):
        if sql.startswith(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(sql, *values)

connect = sqlite3.connect
sqlite3.connect = lambda *args, **more: connect(*args, factory=Connection, **more)
ledger.Ledger(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("statement", ["BEGIN", "ALTER", "PRAGMA user_version =", "COMMIT"])
def test_an_upgrade_that_is_killed_leaves_the_old_ledger(old: Path, statement: str) -> None:
    """The upgrade is all or nothing: the ledger opens afterwards with every event."""
    before = query(old, "SELECT * FROM events")
    ended = subprocess.run([sys.executable, "-c", KILLED_WHEN, str(old), statement], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert query(old, "PRAGMA user_version") == [(0,)]
    assert query(old, "SELECT * FROM events") == before
    Ledger(old).close()
    assert query(old, "PRAGMA user_version") == [(NUMBER,)]
    assert len(read(old)) == len(before)


@pytest.mark.parametrize("make", [lambda path: restored("ledger-0", path), lambda path: path])
def test_two_processes_can_upgrade_at_the_same_time(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """The second finds the work done, for an old ledger and for a new one."""
    path, both = make(tmp_path / "ledger.db"), Barrier(2)

    def open_and_close() -> None:
        both.wait()
        Ledger(path).close()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(open_and_close) for _ in range(2)]:
            done.result(timeout=30)
    assert query(path, "PRAGMA user_version") == [(NUMBER,)]


def test_a_reader_stays_usable_during_an_upgrade(old: Path) -> None:
    """The controller upgrades the ledger while a page is open."""
    reader = Ledger(old, read_only=True)
    before = list(reader.events())
    writer = Ledger(old)
    writer.append(NOTE)
    assert list(reader.events()) == [*before, NOTE]
    writer.close()
    reader.close()
