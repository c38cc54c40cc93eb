"""Whose labels are counted apart: the names of few callers, the same ones in every process and for every version.

The others count together. Without one list for all, a caller might be apart in one version's counts and not in the
other's, and the two could not be compared without his labels.
"""

import sqlite3

from contract.metrics import MOST_CALLERS, OTHER_CALLERS

SCHEMA = """
CREATE TABLE IF NOT EXISTS label_callers (
    name TEXT PRIMARY KEY,
    labelled_at_s REAL NOT NULL   -- last
) WITHOUT ROWID
"""
SEEN = "UPDATE label_callers SET labelled_at_s = :at_s WHERE name = :name"
ADD = "INSERT INTO label_callers SELECT :name, :at_s WHERE (SELECT count(*) FROM label_callers) < :most"
FORGET = "DELETE FROM label_callers WHERE labelled_at_s < ?"


def counted_as(connection: sqlite3.Connection, caller: str, *, at_s: float) -> str:
    """Under which name a label of `caller` counts that comes now. Call it in a transaction."""
    told = {"name": caller, "at_s": at_s, "most": MOST_CALLERS}
    is_apart = connection.execute(SEEN, told).rowcount or connection.execute(ADD, told).rowcount
    return caller if is_apart else OTHER_CALLERS
