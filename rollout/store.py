"""The ledger: every event of a deployment in one SQLite file, append-only.

The controller is its only writer; the CLI, the API and reports read it, also while it is written.
A decision is on disk before it is carried out.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rollout.affected import Progress
from rollout.errors import LedgerError
from rollout.events import EVENT, Ended, Event
from rollout.interfaces import Reading
from rollout.judge import Pair
from rollout.view import ReleaseView, view

_SETUP = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON;"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq     INTEGER PRIMARY KEY,
    at_s    REAL NOT NULL,
    release INTEGER,
    kind    TEXT NOT NULL,
    data    TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS events_of_release ON events (release, kind);
CREATE TRIGGER IF NOT EXISTS events_are_never_changed BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS events_are_never_deleted BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
-- How far the counters were read: written in the same transaction as the evidence taken from them,
-- so that a request is evidence exactly once whenever the controller dies.
CREATE TABLE IF NOT EXISTS cursor (
    instance TEXT NOT NULL,
    version  TEXT NOT NULL,
    signal   TEXT NOT NULL,
    bad      INTEGER NOT NULL,
    total    INTEGER NOT NULL,
    PRIMARY KEY (instance, version, signal)
) STRICT, WITHOUT ROWID;
-- The same for the failures of a sticky release: keys of users, kept no longer than the release.
CREATE TABLE IF NOT EXISTS failures_read (
    only           INTEGER PRIMARY KEY CHECK (only = 1),
    read_to        INTEGER NOT NULL,
    waiting_stable INTEGER NOT NULL,
    waiting_canary INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS affected_users (
    user               BLOB PRIMARY KEY,
    failures_on_stable INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursor_time (only INTEGER PRIMARY KEY CHECK (only = 1), at_s REAL NOT NULL) STRICT;
"""


class Ledger:
    """One open ledger file. Use it from one thread."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open `path`, and make it unless `read_only`. Raises LedgerError."""
        self.path = path
        if read_only and not path.exists():
            raise LedgerError(
                "there is no ledger yet", saw=f"no file {path}", do="start the stack with `kanaria up TAG`"
            )
        with self._explained("be opened"):
            uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
            self._db = sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None)
            if not read_only:
                self._db.executescript(_SETUP + _SCHEMA)

    def append(self, *events: Event, cursor: Reading | None = None, affected: Progress | None = None) -> None:
        """Write `events` durably and all or nothing. Raises LedgerError.

        Args:
            cursor: how far the counters were read.
            affected: how far a sticky release's failures were, and the users that are new or changed. The end of a
                release drops them all.
        """
        rows = [(event.at_s, event.release, event.kind, event.model_dump_json()) for event in events]
        with self._explained("be written"), self._transaction():
            self._db.executemany("INSERT INTO events (at_s, release, kind, data) VALUES (?, ?, ?, ?)", rows)
            if cursor is not None:
                self._db.execute("DELETE FROM cursor")
                self._db.executemany(
                    "INSERT INTO cursor VALUES (?, ?, ?, ?, ?)",
                    [(*key, pair.bad, pair.total) for key, pair in cursor.counters.items()],
                )
                self._db.execute("INSERT OR REPLACE INTO cursor_time VALUES (1, ?)", (cursor.at_s,))
            if affected is not None:
                row = (affected.offset, *affected.waiting)
                self._db.execute("INSERT OR REPLACE INTO failures_read VALUES (1, ?, ?, ?)", row)
                users = affected.failures_on_stable.items()
                self._db.executemany("INSERT OR REPLACE INTO affected_users VALUES (?, ?)", users)
            if any(isinstance(event, Ended) for event in events):
                self._db.execute("DELETE FROM failures_read")
                self._db.execute("DELETE FROM affected_users")

    def events(self, *, release: int | None = None, without_ticks: bool = False) -> Iterator[Event]:
        """Events oldest first: all of them, or those of one release. Raises LedgerError."""
        where, values = ["1"], []
        if release is not None:
            where.append("release = ?")
            values.append(release)
        if without_ticks:
            where.append("kind != 'ticked'")
        query = f"SELECT data FROM events WHERE {' AND '.join(where)} ORDER BY seq"  # noqa: S608 - our own words only
        with self._explained("be read"):
            for (data,) in self._db.execute(query, values):
                yield EVENT.validate_json(data)

    def cursor(self) -> Reading | None:
        """How far the counters were read when the controller last wrote; None before the first time."""
        with self._explained("be read"):
            row = self._db.execute("SELECT at_s FROM cursor_time").fetchone()
            rows = self._db.execute("SELECT instance, version, signal, bad, total FROM cursor").fetchall()
        if row is None:
            return None
        return Reading(at_s=row[0], counters={(i, v, s): Pair(bad, total) for i, v, s, bad, total in rows})

    def affected(self) -> Progress | None:
        """All users that the running release affected; None before its first window."""
        with self._explained("be read"):
            row = self._db.execute("SELECT read_to, waiting_stable, waiting_canary FROM failures_read").fetchone()
            users = dict(self._db.execute("SELECT user, failures_on_stable FROM affected_users"))
        return None if row is None else Progress(row[0], (row[1], row[2]), users)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # a full disk makes SQLite roll back by itself
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerError(
                f"the ledger cannot {verb}",
                saw=f"{self.path}: {error}",
                do="check the disk's free space and the file's permissions; the traffic split stays as it is",
            ) from error


def load_view(ledger: Ledger, number: int) -> ReleaseView:
    """The story of one release. Raises KeyError when there is no such release, LedgerError."""
    events = list(ledger.events(release=number))
    if not events:
        raise KeyError(number)
    return view(events)
