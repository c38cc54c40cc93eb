"""What must outlive the samples of a release: that it failed, and when it began. One SQLite file.

All else is read from Prometheus again. Every replica may have a file of its own: each finds a failure by itself.
"""

import json
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
"""
_WAIT_S = 5.0  # for another thread or replica that writes


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a version. Where the names of versions are used again, as Flagger does, `of` tells the tries apart."""

    namespace: str
    rollout: str
    canary: str
    of: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.namespace, self.rollout, self.canary, self.of


@dataclass(frozen=True, slots=True)
class Failure:
    """A FAIL: the answer that said so, and when."""

    attempt: Attempt
    at_s: float  # Unix seconds
    answer: dict[str, Any]


class Kept:
    """The file at `path`. Used from any thread."""

    def __init__(self, path: Path) -> None:
        """Make the file where there is none. Raises LedgerError."""
        self._path = path
        with self._open() as db:
            db.executescript(_TABLES)

    def failure(self, attempt: Attempt) -> Failure | None:
        """The failure that keeps this attempt in quarantine; None: there is none. Raises LedgerError, as all do."""
        where = "namespace = ? AND rollout = ? AND canary = ? AND attempt = ? AND lifted_s IS NULL"
        with self._open() as db:
            row = db.execute(f"SELECT at_s, answer FROM failures WHERE {where}", attempt.key).fetchone()  # noqa: S608 - our own words
        return Failure(attempt, row[0], json.loads(row[1])) if row else None

    def failures(self) -> list[Failure]:
        """All that are in quarantine, the newest first."""
        with self._open() as db:
            rows = db.execute(
                "SELECT namespace, rollout, canary, attempt, at_s, answer FROM failures WHERE lifted_s IS NULL "
                "ORDER BY at_s DESC"
            ).fetchall()
        return [Failure(Attempt(*row[:4]), row[4], json.loads(row[5])) for row in rows]

    def keep(self, failure: Failure) -> None:
        """Keep it; the first of an attempt counts."""
        row = (*failure.attempt.key, failure.at_s, json.dumps(failure.answer))
        with self._open() as db:
            db.execute(
                "INSERT OR IGNORE INTO failures (namespace, rollout, canary, attempt, at_s, answer) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )

    def lift(self, attempt: Attempt, at_s: float) -> int:
        """Let a version be tried again, whatever its tries are called. Gives how many had failed.

        The evidence of all tries begins anew, also where none has failed: another replica has found a failure in the
        same samples, and this one would find it next.
        """
        names = attempt.namespace, attempt.rollout, attempt.canary
        with self._open() as db:
            where = "namespace = ? AND rollout = ? AND canary = ?"
            lifted = db.execute(
                f"UPDATE failures SET lifted_s = ? WHERE {where} AND lifted_s IS NULL",  # noqa: S608 - our own words
                (at_s, *names),
            ).rowcount
            known = f"SELECT attempt FROM {{}} WHERE {where}"  # noqa: S608 - our own words
            tries = {
                row[0] for table in ("failures", "starts") for row in db.execute(known.format(table), names).fetchall()
            }
            for each in {attempt.of, *tries}:
                db.execute("INSERT OR REPLACE INTO starts VALUES (?, ?, ?, ?, ?)", (*names, each, at_s))
            db.execute(f"DELETE FROM first_weights WHERE {where}", names)  # noqa: S608 - our own words
        return lifted

    def start(self, attempt: Attempt, at_s: float) -> None:
        """Remember when an attempt began; the first time counts."""
        with self._open() as db:
            db.execute("INSERT OR IGNORE INTO starts VALUES (?, ?, ?, ?, ?)", (*attempt.key, at_s))

    def give_first_weight(self, attempt: Attempt, at_s: float) -> bool:
        """Remember that an attempt may have its first traffic; False: it was remembered before."""
        with self._open() as db:
            row = (*attempt.key, at_s)
            return db.execute("INSERT OR IGNORE INTO first_weights VALUES (?, ?, ?, ?, ?)", row).rowcount == 1

    def started_s(self, attempt: Attempt) -> float | None:
        """When an attempt began at the earliest, Unix seconds; None: nobody said so."""
        with self._open() as db:
            row = db.execute(
                "SELECT at_s FROM starts WHERE namespace = ? AND rollout = ? AND canary = ? AND attempt = ?",
                attempt.key,
            ).fetchone()
        return row[0] if row else None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection; what is written on it is written when the block ends. Raises LedgerError."""
        try:
            with closing(sqlite3.connect(self._path, timeout=_WAIT_S)) as db, db:
                yield db
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(
                "what the judge keeps cannot be read or written",
                saw=f"{self._path}: {error}",
                do="check the volume's free space and permissions; `--ledger` names the file",
            ) from error
