"""The callers whose labels are counted separately: a short list, the same in every process and for every version.

All other callers are counted together. Without a shared list, a caller could be counted separately for one version
only, and the two versions could not be compared without that caller's labels.
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
    """The name under which a label of `caller` counts now. Call it in a transaction."""
    told = {"name": caller, "at_s": at_s, "most": MOST_CALLERS}
    is_apart = connection.execute(SEEN, told).rowcount or connection.execute(ADD, told).rowcount
    return caller if is_apart else OTHER_CALLERS
