"""What lies beside a ledger: its identity, its copies, the files that SQLite keeps. Knows no events."""

import hashlib
import json
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

NEW = "`kanaria ledger new`"


def identity_file(ledger: Path) -> Path:
    """Says that there was a ledger, and which: a deleted ledger is not silently a new one."""
    return ledger.with_suffix(".id")


def copies_folder(ledger: Path) -> Path:
    """Where `kanaria ledger backup` writes."""
    return ledger.parent / "backups"


def companions(ledger: Path) -> tuple[Path, Path]:
    """SQLite's write-ahead log of the ledger, which holds its newest events, and the index of that log."""
    return Path(f"{ledger}-wal"), Path(f"{ledger}-shm")


def had_ledger(ledger: Path) -> bool:
    """Whether something here says that there was a ledger."""
    log, _ = companions(ledger)
    return identity_file(ledger).exists() or (log.exists() and log.stat().st_size > 0)


def identity(db: sqlite3.Connection) -> str | None:
    """What tells a ledger from all others: its first event, which never changes. None: it has no event."""
    row = db.execute("SELECT at_s, kind, data FROM events ORDER BY seq LIMIT 1").fetchone()
    return hashlib.sha256(json.dumps(row).encode()).hexdigest() if row else None


def copies(ledger: Path) -> list[Path]:
    """Its copies that were made without a name, newest first."""
    return sorted(copies_folder(ledger).glob(f"{ledger.stem}-*{ledger.suffix}"), reverse=True)


def newest_copy(ledger: Path) -> Path | None:
    """The newest copy of this ledger that can be opened. Each was checked when it was made, and is not read in full."""
    known = None
    with suppress(OSError, UnicodeDecodeError):
        known = identity_file(ledger).read_text().strip()
    return next((copy for copy in copies(ledger) if (found := identity_of(copy)) and known in (None, found)), None)


def dated(ledger: Path, now_s: float, word: str = "") -> Path:
    """The ledger's path with a word and a time, UTC, in its name. No file has it yet; names sort by time."""
    stem = "-".join(filter(None, (ledger.stem, word)))
    second = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    names = (f"{stem}-{second}{number}{ledger.suffix}" for number in ("", *(f"_{n:02}" for n in range(2, 100))))
    return next(path for name in names if not (path := ledger.with_name(name)).exists())


def set_aside(ledger: Path, word: str, now_s: float) -> Path | None:
    """Give the ledger another name, with what SQLite keeps for it; None where there is nothing. Raises OSError.

    Its log goes first: SQLite would take the log of one ledger for that of the next.
    """
    aside = dated(ledger, now_s, word)
    for found, other in zip((*companions(ledger), ledger), (*companions(aside), aside), strict=True):
        if found.exists():
            found.rename(other)
    return aside if aside.exists() else None


def restore(ledger: Path) -> str:
    """What to do about a ledger that is damaged or gone."""
    found = newest_copy(ledger)
    command = f"`kanaria ledger restore {found or 'FILE'}`"
    none = "" if found else f" (there is none in {copies_folder(ledger)})"
    return f"restore it from a copy: {command}{none}; or begin without history: {NEW}"


def identity_of(file: Path) -> str | None:
    """The identity of a file that may be a ledger."""
    with suppress(sqlite3.Error, UnicodeDecodeError), closing(_open(file)) as db:
        return identity(db)
    return None


def _open(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
