"""The files beside a ledger: its identity, its copies, and SQLite's own files. This module knows no events."""

import hashlib
import json
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

NEW = "`kanaria ledger new`"


def identity_file(ledger: Path) -> Path:
    """The file that says which ledger was here, so that a deleted ledger is not silently replaced by a new one."""
    return ledger.with_suffix(".id")


def copies_folder(ledger: Path) -> Path:
    """Where `kanaria ledger backup` writes."""
    return ledger.parent / "backups"


def companions(ledger: Path) -> tuple[Path, Path]:
    """SQLite's write-ahead log of the ledger, which holds its newest events, and the index of that log."""
    return Path(f"{ledger}-wal"), Path(f"{ledger}-shm")


def had_ledger(ledger: Path) -> bool:
    """Whether a file here shows that there was a ledger."""
    log, _ = companions(ledger)
    return identity_file(ledger).exists() or (log.exists() and log.stat().st_size > 0)


def identity(db: sqlite3.Connection) -> str | None:
    """The identity of a ledger: the hash of its first event, which never changes. None: it has no event."""
    row = db.execute("SELECT at_s, kind, data FROM events ORDER BY seq LIMIT 1").fetchone()
    return hashlib.sha256(json.dumps(row).encode()).hexdigest() if row else None


def copies(ledger: Path) -> list[Path]:
    """The copies of the ledger in the folder of copies, newest first."""
    return sorted(copies_folder(ledger).glob(f"{ledger.stem}-*{ledger.suffix}"), reverse=True)


def newest_copy(ledger: Path) -> Path | None:
    """The newest copy of this ledger that can be opened. It was checked when it was made, and is not checked again."""
    known = None
    with suppress(OSError, UnicodeDecodeError):
        known = identity_file(ledger).read_text().strip()
    return next((copy for copy in copies(ledger) if (found := identity_of(copy)) and known in (None, found)), None)


def dated(ledger: Path, now_s: float, word: str = "") -> Path:
    """The ledger's path with a word and the UTC time in its name. No file has this name; names sort by time."""
    stem = "-".join(filter(None, (ledger.stem, word)))
    second = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    names = (f"{stem}-{second}{number}{ledger.suffix}" for number in ("", *(f"_{n:02}" for n in range(2, 100))))
    return next(path for name in names if not (path := ledger.with_name(name)).exists())


def set_aside(ledger: Path, word: str, now_s: float) -> Path | None:
    """Rename the ledger, together with SQLite's files; None: there is no ledger. Raises OSError.

    The log is renamed first: otherwise SQLite would use the log of this ledger for the next one.
    """
    aside = dated(ledger, now_s, word)
    for found, other in zip((*companions(ledger), ledger), (*companions(aside), aside), strict=True):
        if found.exists():
            found.rename(other)
    return aside if aside.exists() else None


def restore(ledger: Path) -> str:
    """What to do about a ledger that is damaged or gone, in words."""
    found = newest_copy(ledger)
    command = f"`kanaria ledger restore {found or 'FILE'}`"
    none = "" if found else f" (there is none in {copies_folder(ledger)})"
    return f"restore it from a copy: {command}{none}; or begin without history: {NEW}"


def identity_of(file: Path) -> str | None:
    """The identity of a file that may be a ledger; None: it is not one, or has no event."""
    with suppress(sqlite3.Error, UnicodeDecodeError), closing(_open(file)) as db:
        return identity(db)
    return None


def _open(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
