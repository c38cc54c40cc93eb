"""The ledger: every event of a deployment in one SQLite file, append-only.

Only the controller writes it; any number of processes may read it at the same time. A decision is on disk before it is
carried out.
"""

import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contract.files import write_whole
from rollout.errors import (
    LedgerDamaged,
    LedgerError,
    LedgerGone,
    LedgerNewer,
    LedgerTaken,
    NoLedger,
    NoSuchRelease,
    NotALedger,
)
from rollout.judge import Pair
from rollout.ledger import places
from rollout.ledger.chain import START, Head
from rollout.ledger.events import Ended, Event, Ticked
from rollout.ledger.migrations import CHAINED, MIGRATIONS, NUMBER, read_event
from rollout.signals.counters import Reading
from rollout.signals.sticky_users import Progress

_SETUP = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON;"
# Longest wait for another process that writes, seconds. No other process should write, and a beat of the control loop
# takes half a second: events that cannot be written in this time are written in one of the next beats.
_WRITER_WAIT_S, _READER_WAIT_S = 0.25, 10.0
_TABLES = (  # of schema number 0; `migrations` has the later changes
    """CREATE TABLE IF NOT EXISTS events (
    seq     INTEGER PRIMARY KEY,
    at_s    REAL NOT NULL,
    release INTEGER,
    kind    TEXT NOT NULL,
    data    TEXT NOT NULL
) STRICT""",
    "CREATE INDEX IF NOT EXISTS events_of_release ON events (release, kind)",
    """CREATE TRIGGER IF NOT EXISTS events_are_never_changed BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER IF NOT EXISTS events_are_never_deleted BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    # The counters' values at the last reading: written in the same transaction as the evidence taken from them,
    # so that a request is evidence exactly once whenever the controller dies.
    """CREATE TABLE IF NOT EXISTS cursor (
    instance TEXT NOT NULL,
    version  TEXT NOT NULL,
    signal   TEXT NOT NULL,
    bad      INTEGER NOT NULL,
    total    INTEGER NOT NULL,
    PRIMARY KEY (instance, version, signal)
) STRICT, WITHOUT ROWID""",
    # The same for the failures of a sticky release: keys of users, kept no longer than the release.
    """CREATE TABLE IF NOT EXISTS failures_read (
    only           INTEGER PRIMARY KEY CHECK (only = 1),
    read_to        INTEGER NOT NULL,
    waiting_stable INTEGER NOT NULL,
    waiting_canary INTEGER NOT NULL
) STRICT""",
    """CREATE TABLE IF NOT EXISTS affected_users (
    user               BLOB PRIMARY KEY,
    failures_on_stable INTEGER NOT NULL
) STRICT, WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS cursor_time (only INTEGER PRIMARY KEY CHECK (only = 1), at_s REAL NOT NULL) STRICT",
)
_PACKED_FROM = 16_384  # bytes; longer events are compressed, shorter ones (most) stay text that any SQLite tool shows
_NO_END = 2**62  # more events than there ever are
_LARGEST_EVENT = 2**28  # bytes, decompressed
_BEGIN = "start the stack with `kanaria up TAG`"
_IN_THE_WAY = "move it away; a new ledger begins with the next `kanaria up TAG`"
_PLACE = "check the disk's free space and the permissions of the file and its folder; the traffic split stays as it is"
_NEWER = "use the version that wrote it, or a newer one; the file was left as it is"
# SQLite's names for damage; a short read means that the file was cut off.
_DAMAGES = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT", "SQLITE_IOERR_SHORT_READ", "SQLITE_IOERR_CORRUPTFS")
_OF_A_NEWER_VERSION = {"union_tag_invalid", "extra_forbidden"}  # a kind or a field that this version does not know


class Ledger:
    """One open ledger file. Use it from one thread."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open `path`; unless `read_only`, create it or bring an older one up to date. Raises LedgerError.

        A file that is not a ledger, or that a newer version wrote, is refused and not changed. If a ledger is gone,
        opening fails as well: a new one begins only where there was none.
        """
        self.path = path
        self._head = START  # the last event that this process knows
        self._is_known = False  # whether the folder names its ledger
        if path.is_dir():
            raise NotALedger("the ledger cannot be opened", saw=f"{path} is a folder", do=_IN_THE_WAY)
        self._refuse_a_missing_file(read_only=read_only)
        self._open(read_only=read_only)

    def _open(self, *, read_only: bool) -> None:
        path = self.path
        with self._explained("be opened"):
            uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
            wait_s = _READER_WAIT_S if read_only else _WRITER_WAIT_S
            self._db = sqlite3.connect(uri, uri=True, timeout=wait_s, isolation_level=None)
            try:
                self._check(read_only=read_only)
                self._file = path.stat()
                if not read_only:
                    self._db.executescript(_SETUP)
                    self._bring_up_to_date()
                    self._head = self.head()
                    self._remember()
            except BaseException:
                self._db.close()
                raise

    def append(self, *events: Event, cursor: Reading | None = None, affected: Progress | None = None) -> None:
        """Write `events` durably, all or none. Raises LedgerError, LedgerTaken.

        Args:
            events: in order.
            cursor: the counters' values at the last reading.
            affected: how far a sticky release's failures were read, and the new or changed users. The end of a release
                deletes them all.
        """
        self._refuse_a_lost_file()
        head, rows = self._head, []
        for event in events:
            data, packed = _as_stored(event)
            head = head.then((event.at_s, event.release, event.kind, data, NUMBER), packed)
            rows.append((event.at_s, event.release, event.kind, data, packed, NUMBER, head.hash))
        with self._explained("be written"), self._transaction():
            self._refuse_a_second_writer()
            self._db.executemany(
                "INSERT INTO events (at_s, release, kind, data, packed, schema, chain) VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
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
        self._head = head
        if rows and not self._is_known:
            self._remember()

    def events(self, *, release: int | None = None, without_ticks: bool = False) -> Iterator[Event]:
        """Events oldest first: all of them, or those of one release. Raises LedgerError."""
        return (event for _, event in self.numbered(release=release, without_ticks=without_ticks))

    def numbered(
        self, *, since: int = 1, to: int = _NO_END, release: int | None = None, without_ticks: bool = False
    ) -> Iterator[tuple[int, Event]]:
        """Events from number `since` to number `to`, each with its number. Raises LedgerError."""
        where, values = ["seq BETWEEN ? AND ?"], [since, to]
        if release is not None:
            where.append("release = ?")
            values.append(release)
        if without_ticks:
            where.append("kind != 'ticked'")
        query = f"SELECT * FROM events WHERE {' AND '.join(where)} ORDER BY seq"  # noqa: S608 - constants only
        with self._explained("be read"):
            for row in self._rows(query, values):
                yield row["seq"], self._event(row)

    def last_tick(self, number: int) -> Ticked | None:
        """The last measurement of a release; None where nothing was judged. Raises LedgerError."""
        query = "SELECT * FROM events WHERE release = ? AND kind = 'ticked' ORDER BY seq DESC LIMIT 1"
        with self._explained("be read"):
            row = next(self._rows(query, (number,)), None)
        event = self._event(row) if row else None
        return event if isinstance(event, Ticked) else None

    def of_release(self, number: int, *, to: int = _NO_END) -> tuple[Event, ...]:
        """The events of one release up to event `to`, oldest first. Raises NoSuchRelease, LedgerError."""
        events = tuple(event for _, event in self.numbered(to=to, release=number))
        if events and events[0].kind != "release_requested":
            raise self._damaged(f"{self.path}: release {number} begins with `{events[0].kind}`")
        if events:
            return events
        with self._explained("be read"):  # `+` makes SQLite read the table, because its index may be damaged
            found = self._db.execute("SELECT seq, kind FROM events WHERE +release = ?", (number,)).fetchone()
        if found:
            raise self._damaged(f"{self.path}: event {found[0]} (`{found[1]}`) is not in the index")
        raise NoSuchRelease(str(number))

    def cursor(self) -> Reading | None:
        """The counters' values when the controller last wrote; None before the first time."""
        with self._explained("be read"):
            row = self._db.execute("SELECT at_s FROM cursor_time").fetchone()
            rows = self._db.execute("SELECT instance, version, signal, bad, total FROM cursor").fetchall()
        if row is None:
            return None
        return Reading(at_s=row[0], counters={(i, v, s): Pair(bad, total) for i, v, s, bad, total in rows})

    def affected(self) -> Progress | None:
        """The users that the running release affected; None before its first window."""
        with self._explained("be read"):
            row = self._db.execute("SELECT read_to, waiting_stable, waiting_canary FROM failures_read").fetchone()
            users = dict(self._db.execute("SELECT user, failures_on_stable FROM affected_users"))
        return None if row is None else Progress(row[0], (row[1], row[2]), users)

    def check_file(self) -> None:
        """Read every page and compare every index with its table. Raises LedgerDamaged, LedgerError."""
        with self._explained("be read"):
            found = [" ".join(str(row[0]).split()) for row in self._db.execute("PRAGMA integrity_check(3)")]
            count, first, last = self._db.execute("SELECT count(*), min(seq), max(seq) FROM events").fetchone()
        if count and (first, last) != (1, count):
            found = [*found, f"{count} events, numbered from {first} to {last}"]
        faults = "; ".join(fault for fault in found if fault != "ok")
        if faults:
            raise LedgerDamaged("the ledger is damaged", saw=f"{self.path}: {faults}", do=places.restore(self.path))

    def check_chain(self, *, to: int = _NO_END) -> Head:
        """Compare every event with its hash; returns the last. Raises LedgerDamaged, LedgerError.

        Args:
            to: number of the event to stop at.
        """
        head, is_chained = START, False
        with self._explained("be read"):
            for row in self._rows("SELECT * FROM events WHERE seq <= ? ORDER BY seq", (to,)):
                known = (row["at_s"], row["release"], row["kind"], row["data"], row.get("schema", 0))
                head, stored = head.then(known, row.get("packed")), row.get("chain")
                is_chained |= stored is not None or row.get("schema", 0) >= CHAINED  # older versions wrote no hashes
                if head.events != row["seq"] or (is_chained and stored != head.hash):
                    raise LedgerDamaged(
                        "the ledger was changed",
                        saw=f"{self.path}: event {row['seq']} (`{row['kind']}`), or one before it, was changed after "
                        "it was written: its hash differs",
                        do=places.restore(self.path),
                    )
        return head

    @property
    def last(self) -> Head:
        """The last event that this process wrote, or that it found when it opened the ledger for writing."""
        return self._head

    def head(self) -> Head:
        """The last event and its hash, unchecked. Raises LedgerError."""
        with self._explained("be read"):
            row = next(self._rows("SELECT * FROM events ORDER BY seq DESC LIMIT 1"), {})
        if row and not row.get("chain"):  # an older version wrote it: read all events once
            return self.check_chain()
        return Head(row["seq"], row["chain"]) if row else START

    def copy_to(self, target: Path) -> None:
        """Copy everything that is committed to the new file `target`. Raises LedgerError.

        No writer waits for it: in write-ahead mode a reader does not block a writer. It also works if the file was
        deleted after this process opened it. The copy is one file and needs no log beside it.
        """
        with self._explained("be copied"), closing(sqlite3.connect(target, isolation_level=None)) as copy:
            self._db.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")

    def identity(self) -> str | None:
        """The ledger's identity, which no other ledger has; None before its first event. Raises LedgerError."""
        with self._explained("be read"):
            return places.identity(self._db)

    @property
    def is_in_place(self) -> bool:
        """Whether the file at its path is the one that is open."""
        try:
            return os.path.samestat(self.path.stat(), self._file)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # a file that cannot be inspected does not count as gone
            return True

    def go_on_with(self, file: Path) -> None:
        """Rename `file`, a copy of this ledger, to this path, and continue with it. Raises LedgerError, OSError."""
        for companion in places.companions(self.path):  # they belong to the lost file; the copy has their content
            companion.unlink(missing_ok=True)
        file.replace(self.path)
        # Not earlier, because it holds the events; not after `_open`, because closing removes the log by its name.
        self._db.close()
        self._open(read_only=False)

    def close(self) -> None:
        self._db.close()

    def _refuse_a_missing_file(self, *, read_only: bool) -> None:
        """Raise LedgerError before SQLite opens the path: it would create a file and drop a left write-ahead log."""
        if self.path.exists() and self.path.stat().st_size > 0:
            return
        saw = f"{self.path} is empty" if self.path.exists() else f"no file {self.path}"
        was_there = places.had_ledger(self.path)
        if read_only or was_there:
            raise self._none(saw, was_there=was_there)

    def _none(self, saw: str, *, was_there: bool) -> LedgerError:
        """The error for a missing ledger: there never was one, or it is gone."""
        if not was_there:
            return NoLedger("there is no ledger yet", saw=saw, do=_BEGIN)
        return LedgerGone("the ledger is gone", saw=f"{saw}, and there was one", do=places.restore(self.path))

    def _check(self, *, read_only: bool) -> None:
        """Refuse a file that is not a ledger, or that only a newer version can read."""
        number = self._number()
        if number > NUMBER:
            raise LedgerNewer(
                "the ledger was written by a newer version of Kanaria",
                saw=f"{self.path}: schema number {number}, this version knows {NUMBER}",
                do=_NEWER,
            )
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and "events" not in tables:
            raise NotALedger(
                "this file is not a ledger",
                saw=f"{self.path}: a database with the tables {', '.join(sorted(tables))}",
                do="check the path; the file was left as it is",
            )
        # SQLite has read the write-ahead log by now; one that exists now may belong to a ledger that is being created.
        was_there = places.identity_file(self.path).exists()
        if not tables and (read_only or was_there):
            raise self._none(f"{self.path} is empty", was_there=was_there)
        if tables and not read_only:
            self._refuse_another()

    def _refuse_another(self) -> None:
        """Refuse the ledger of another deployment, or a new one in place of the one that was here."""
        file, found = places.identity_file(self.path), places.identity(self._db)
        try:
            known = file.read_text().strip()
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise LedgerError("the ledger cannot be opened", saw=f"{file}: {error}", do=f"remove {file}") from error
        if found is None and known:
            raise self._none(f"{self.path} has no events", was_there=True)
        if known not in ("", found):
            raise LedgerError(
                "this is the ledger of another deployment",
                saw=f"the first event of {self.path} does not match {file}",
                do=f"{places.restore(self.path)}; or, to go on with this file, remove {file}",
            )

    def _remember(self) -> None:
        """Note in the folder which ledger it has. On a full disk the next write tries again."""
        known = places.identity(self._db)
        if known is None:
            return
        with suppress(OSError):
            if not places.identity_file(self.path).is_file():
                write_whole(places.identity_file(self.path), f"{known}\n")
            self._is_known = True

    def _refuse_a_lost_file(self) -> None:
        """Raise LedgerGone if the file was deleted: SQLite would go on writing to it, and all of it would be lost."""
        if not self.is_in_place:
            raise LedgerGone(
                "the ledger is gone",
                saw=f"{self.path} was deleted or replaced while it was open",
                do=f"{places.restore(self.path)}; then restart the controller",
            )

    def _refuse_a_second_writer(self) -> None:
        """Raise LedgerTaken if another process has written since this one last read or wrote."""
        last = self.count()
        if last != self._head.events:
            raise LedgerTaken(
                "another process writes this ledger",
                saw=f"{self.path}: its last event is {last}, not {self._head.events}",
                do="leave it to that process; this process must restart",
            )

    def count(self) -> int:
        """The number of events; they are numbered from 1 without gaps."""
        with self._explained("be read"):
            number: int = self._db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
        return number

    def _bring_up_to_date(self) -> None:
        """Create the tables, or change those of an older schema number, all or nothing."""
        if self._number() == NUMBER:
            return
        with self._transaction():
            number = self._number()
            made = () if number else _TABLES
            for statement in (*made, *(step for migration in MIGRATIONS[number:] for step in migration.tables)):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {NUMBER}")

    def _number(self) -> int:
        number: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        return number

    def _rows(self, query: str, values: Sequence[object] = ()) -> Iterator[dict[str, Any]]:
        """The rows of a query, by column name: an older file that is only read lacks some columns."""
        found = self._db.execute(query, values)
        columns = [name for name, *_ in found.description]
        return (dict(zip(columns, row, strict=True)) for row in found)

    def _event(self, row: dict[str, Any]) -> Event:
        place, number = f"{self.path}: event {row['seq']} (`{row['kind']}`)", row.get("schema", 0)
        if number > NUMBER:
            raise self._newer(f"{place} has schema number {number}, this version knows {NUMBER}")
        try:
            return read_event(_unpacked(row.get("packed")) or row["data"], number)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            saw = f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            if {one["type"] for one in error.errors()} <= _OF_A_NEWER_VERSION:
                raise self._newer(saw) from error
            raise self._damaged(saw) from error
        except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
            raise self._damaged(f"{place}: {error}") from error

    def _newer(self, saw: str) -> LedgerNewer:
        return LedgerNewer("the ledger contains an event of a newer version of Kanaria", saw=saw, do=_NEWER)

    def _damaged(self, saw: str) -> LedgerDamaged:
        return LedgerDamaged("an event of the ledger cannot be read", saw=saw, do=places.restore(self.path))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk makes SQLite roll back by itself
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            what, saw = f"the ledger cannot {verb}", f"{self.path}: {' '.join(str(error).split())}"
            if is_damage(error):
                raise LedgerDamaged(what, saw=saw, do=places.restore(self.path)) from error
            raise LedgerError(what, saw=saw, do=_PLACE) from error


def _as_stored(event: Event) -> tuple[str, bytes | None]:
    """An event for the columns `data` and `packed`; one of them holds all of it."""
    text = event.stored()
    return (text, None) if len(text) < _PACKED_FROM else ("", zlib.compress(text.encode(), 1))


def _unpacked(packed: bytes | None) -> str | None:
    return zlib.decompressobj().decompress(packed, _LARGEST_EVENT).decode() if packed else None


def is_damage(error: Exception) -> bool:
    """Whether the error means a damaged file, not a problem with the disk, a lock or permissions."""
    name = getattr(error, "sqlite_errorname", None)
    if name is None:  # raised by Python: bytes that are not text
        return isinstance(error, sqlite3.OperationalError | UnicodeDecodeError)
    return bool(name.startswith(_DAMAGES))
