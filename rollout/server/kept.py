"""Stores what must outlive a release's samples: that it failed, and when it started. One SQLite file.

Everything else is read from Prometheus again. Each replica may have its own file, because each finds failures itself.
"""

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout.errors import LedgerError

_TABLES = """
PRAGMA journal_mode=WAL;
CREATE TABLE IF NOT EXISTS failures (
    id        INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    rollout   TEXT NOT NULL,
    canary    TEXT NOT NULL,
    attempt   TEXT NOT NULL,
    at_s      REAL NOT NULL,
    answer    TEXT NOT NULL,
    lifted_s  REAL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_failure ON failures (namespace, rollout, canary, attempt) WHERE lifted_s IS NULL;
CREATE INDEX IF NOT EXISTS newest_failures ON failures (at_s) WHERE lifted_s IS NULL;
CREATE TABLE IF NOT EXISTS starts (
    namespace TEXT NOT NULL,
    rollout   TEXT NOT NULL,
    canary    TEXT NOT NULL,
    attempt   TEXT NOT NULL,
    at_s      REAL NOT NULL,
    PRIMARY KEY (namespace, rollout, canary, attempt)
) STRICT;
CREATE TABLE IF NOT EXISTS first_weights (
    namespace TEXT NOT NULL,
    rollout   TEXT NOT NULL,
    canary    TEXT NOT NULL,
    attempt   TEXT NOT NULL,
    at_s      REAL NOT NULL,
    PRIMARY KEY (namespace, rollout, canary, attempt)
) STRICT;
CREATE TABLE IF NOT EXISTS lifts (
    namespace TEXT NOT NULL,
    rollout   TEXT NOT NULL,
    canary    TEXT NOT NULL,
    at_s      REAL NOT NULL,
    PRIMARY KEY (namespace, rollout, canary)
) STRICT;
"""
_OF_NAME = "namespace = ? AND rollout = ? AND canary = ?"
_WAIT_S = 5.0  # for another thread or replica that writes


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a version, and the question about it.

    If version names are reused, as Flagger does, `of` tells the tries apart. A failure holds for the question `asked`,
    identified by its digest; without a digest, for all questions.
    """

    namespace: str
    rollout: str
    canary: str
    of: str = ""
    asked: str = ""

    @property
    def names(self) -> tuple[str, str, str]:
        return self.namespace, self.rollout, self.canary

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.namespace, self.rollout, self.canary, self.of


@dataclass(frozen=True, slots=True)
class Failure:
    """A FAIL: its answer and its time."""

    attempt: Attempt
    at_s: float  # Unix seconds
    answer: dict[str, Any]


class Kept:
    """The file at `path`. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """Create the file if it is missing. Raises LedgerError."""
        self._path = path
        with self._open() as db:
            db.executescript(_TABLES)

    def failure(self, attempt: Attempt) -> Failure | None:
        """The failure that keeps this attempt in quarantine; None: there is none. Every method raises LedgerError."""
        tries = _stored(attempt), attempt.of
        with self._open() as db:
            row = db.execute(
                f"SELECT at_s, answer FROM failures WHERE {_OF_NAME} AND attempt IN (?, ?) AND lifted_s IS NULL",  # noqa: S608 - our own words
                (*attempt.names, *tries),
            ).fetchone()
        return Failure(attempt, row[0], json.loads(row[1])) if row else None

    def check(self) -> None:
        """Whether the file can be read. Raises LedgerError."""
        with self._open() as db:
            db.execute("SELECT count(*) FROM (SELECT 1 FROM failures LIMIT 1)").fetchone()

    def count(self) -> int:
        """The number of failures in quarantine."""
        with self._open() as db:
            (found,) = db.execute("SELECT count(*) FROM failures WHERE lifted_s IS NULL").fetchone()
        return int(found)

    def failures(self, *, most: int = -1) -> list[Failure]:
        """The failures in quarantine, newest first.

        Args:
            most: the largest number to return; -1: all.
        """
        return self._failures("", (), most)

    def failures_of(self, names: tuple[str, str, str]) -> list[Failure]:
        """The failures of all tries of a version, newest first."""
        return self._failures(f"AND {_OF_NAME}", names, -1)

    def _failures(self, which: str, names: tuple[str, ...], most: int) -> list[Failure]:
        with self._open() as db:
            rows = db.execute(
                "SELECT namespace, rollout, canary, attempt, at_s, answer FROM failures "  # noqa: S608 - our own words
                f"WHERE lifted_s IS NULL {which} ORDER BY at_s DESC LIMIT ?",
                (*names, most),
            ).fetchall()
        return [
            Failure(Attempt(namespace, rollout, canary, *_read(stored)), at_s, json.loads(answer))
            for namespace, rollout, canary, stored, at_s, answer in rows
        ]

    def keep(self, failure: Failure) -> None:
        """Store a failure; the first one of an attempt counts."""
        row = (*failure.attempt.names, _stored(failure.attempt), failure.at_s, json.dumps(failure.answer))
        with self._open() as db:
            db.execute(
                "INSERT OR IGNORE INTO failures (namespace, rollout, canary, attempt, at_s, answer) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )

    def lift(self, attempt: Attempt, at_s: float) -> int:
        """Lift all failures of all tries of a version up to a time. Returns how many tries had failed.

        The evidence of all tries restarts, even if none has failed here: another replica may have found a failure in
        the same samples, and this replica would find it next.
        """
        with self._open() as db:
            lifted = db.execute(
                f"UPDATE failures SET lifted_s = ? WHERE {_OF_NAME} AND lifted_s IS NULL AND at_s <= ?",  # noqa: S608 - our own words
                (at_s, *attempt.names, at_s),
            ).rowcount
            db.execute("INSERT OR REPLACE INTO lifts VALUES (?, ?, ?, ?)", (*attempt.names, at_s))
            db.execute(f"DELETE FROM first_weights WHERE {_OF_NAME} AND at_s <= ?", (*attempt.names, at_s))  # noqa: S608 - our own words
        return lifted

    def lifted_s(self, attempt: Attempt) -> float:
        """The time up to which a version's failures are lifted, Unix seconds; -inf: none were lifted."""
        with self._open() as db:
            row = db.execute(f"SELECT at_s FROM lifts WHERE {_OF_NAME}", attempt.names).fetchone()  # noqa: S608 - our own words
        return row[0] if row else -math.inf

    def start(self, attempt: Attempt, at_s: float) -> None:
        """Store when an attempt started. An attempt that returns after another one restarts."""
        with self._open() as db:
            _put_newest(db, "starts", attempt, at_s)

    def begin(self, attempt: Attempt, at_s: float) -> None:
        """Store another replica's time of an attempt's start."""
        with self._open() as db:
            db.execute("INSERT OR REPLACE INTO starts VALUES (?, ?, ?, ?, ?)", (*attempt.key, at_s))

    def is_newest(self, attempt: Attempt) -> bool:
        """Whether no other try of the version has started since this one."""
        with self._open() as db:
            return _newest(db, "starts", attempt) == attempt.of

    def give_first_weight(self, attempt: Attempt, at_s: float) -> bool:
        """Store that an attempt gets its first traffic; False: it already had, and no other try has since."""
        with self._open() as db:
            return _put_newest(db, "first_weights", attempt, at_s)

    def first_weight_s(self, attempt: Attempt) -> float | None:
        """When an attempt got its first weight, Unix seconds; None: it got none, or another try has since."""
        with self._open() as db:
            row = db.execute(
                f"SELECT attempt, at_s FROM first_weights WHERE {_OF_NAME} ORDER BY at_s DESC, rowid DESC LIMIT 1",  # noqa: S608 - our own words
                attempt.names,
            ).fetchone()
        return row[1] if row and row[0] == attempt.of else None

    def take_first_weight_back(self, attempt: Attempt) -> None:
        """Undo `give_first_weight`."""
        with self._open() as db:
            db.execute(f"DELETE FROM first_weights WHERE {_OF_NAME} AND attempt = ?", attempt.key)  # noqa: S608 - our own words

    def started_s(self, attempt: Attempt) -> float | None:
        """The earliest start of an attempt's evidence, Unix seconds; None: unknown."""
        with self._open() as db:
            row = db.execute(
                f"SELECT at_s FROM starts WHERE {_OF_NAME} AND attempt = ?",  # noqa: S608 - our own words
                attempt.key,
            ).fetchone()
        began_s = max(row[0] if row else -math.inf, self.lifted_s(attempt))
        return None if math.isinf(began_s) else began_s

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are committed at the end of the block. Raises LedgerError."""
        try:
            with closing(sqlite3.connect(self._path, timeout=_WAIT_S)) as db, db:
                yield db
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(
                "the judge's ledger cannot be read or written",
                saw=f"{self._path}: {error}",
                do="check the volume's free space and permissions; `--ledger` names the file",
            ) from error


def _put_newest(db: sqlite3.Connection, table: str, attempt: Attempt, at_s: float) -> bool:
    """Make an attempt the newest in a table; False: it already was."""
    db.execute("BEGIN IMMEDIATE")
    if _newest(db, table, attempt) == attempt.of:
        return False
    db.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?)", (*attempt.key, at_s))  # noqa: S608 - our own words
    return True


def _newest(db: sqlite3.Connection, table: str, attempt: Attempt) -> str | None:
    """The stored name of the newest try of a version in a table."""
    where = f"{_OF_NAME} ORDER BY at_s DESC, rowid DESC LIMIT 1"
    row = db.execute(f"SELECT attempt FROM {table} WHERE {where}", attempt.names).fetchone()  # noqa: S608 - our own words
    return row[0] if row else None


def _stored(attempt: Attempt) -> str:
    """The try and the question as one text, as stored in the file."""
    return f"{attempt.of}#{attempt.asked}" if attempt.asked else attempt.of


def _read(stored: str) -> tuple[str, str]:
    of, _, asked = stored.partition("#")
    return of, asked
