"""Unreadable ledgers, each made from an intact one in a different way."""

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from rollout.ledger.ledger import Ledger
from rollout.ledger.migrations import NUMBER
from tests.support.old_ledgers import restored

PAGE = 4096  # bytes


def whole(path: Path) -> None:
    """A ledger of five releases, as this version leaves it."""
    restored("ledger-0", path)
    Ledger(path).close()


def newer_file(path: Path) -> None:
    _execute(path, f"PRAGMA user_version = {NUMBER + 1}")


def newer_row(path: Path) -> None:
    _insert(path, NUMBER + 1, '{"at_s": 1.0, "kind": "noted", "topic": "fleet", "text": ""}', "noted")


def newer_kind(path: Path) -> None:
    _insert(path, NUMBER, '{"at_s": 1.0, "kind": "cloned", "tag": "m:v9"}', "cloned")


def newer_field(path: Path) -> None:
    _insert(path, NUMBER, '{"at_s": 1.0, "kind": "stable_set", "tag": "m:v9", "region": "eu"}', "stable_set")


def nonsense(path: Path) -> None:
    _insert(path, NUMBER, '{"at_s": 1.0, "kind": "ended"', "ended")


def no_text(path: Path) -> None:
    """Bytes that are not UTF-8, where JSON should be."""
    _insert(path, NUMBER, sqlite3.Binary(b"\xff\xfe{"), "ended", "CAST(? AS TEXT)")


def cut(path: Path) -> None:
    os.truncate(path, 10 * PAGE)


def cut_within_a_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size // PAGE // 2 * PAGE + 100)


def garbage(path: Path) -> None:
    """Wrong bytes from the second page on."""
    with path.open("r+b") as file:
        file.seek(PAGE)
        file.write(b"\xff" * 8 * PAGE)


def no_database(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def gone(path: Path) -> None:
    path.unlink()


def only_its_log(path: Path) -> None:
    """A write-ahead log without its database, and without any other sign that there was a ledger."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("CREATE TABLE grown (x TEXT)")  # still in the log, because the file is not closed yet
    log = Path(f"{path}-wal").read_bytes()
    db.close()
    path.unlink()
    path.with_suffix(".id").unlink()
    Path(f"{path}-wal").write_bytes(log)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


UNREADABLE: Mapping[str, Callable[[Path], None]] = {
    make.__name__: make
    for make in (
        newer_file,
        newer_row,
        newer_kind,
        newer_field,
        nonsense,
        no_text,
        cut,
        cut_within_a_page,
        garbage,
        no_database,
        empty,
        gone,
        only_its_log,
        folder,
    )
}
OF_A_NEWER_VERSION = ("newer_file", "newer_row", "newer_kind", "newer_field")
LOST = ("empty", "gone", "only_its_log")


def _execute(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(sql, values)


def _insert(path: Path, schema: int, data: object, kind: str, as_what: str = "?") -> None:
    """Append an event as a version with this schema number does; data that is not text has no hash."""
    with closing(Ledger(path, read_only=True)) as ledger:
        head = ledger.head()
    chain = head.then((1.0, 5, kind, data, schema), None).hash if isinstance(data, str) else None
    _execute(
        path,
        f"INSERT INTO events (at_s, release, kind, data, schema, chain) VALUES (1.0, 5, ?, {as_what}, ?, ?)",  # noqa: S608 - ours
        kind,
        data,
        schema,
        chain,
    )
