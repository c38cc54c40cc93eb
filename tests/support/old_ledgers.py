"""Ledgers that earlier versions of Kanaria wrote, stored as SQL in tests/data/."""

import sqlite3
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"


def restored(name: str, path: Path) -> Path:
    """Write the ledger `name` to the new file `path`, as the earlier version left it."""
    db = sqlite3.connect(path)
    db.executescript((DATA / f"{name}.sql").read_text())
    db.close()
    return path
