"""Removes the oldest answers from the table if they are too old, too many or too large."""

import sqlite3
import time

from service.logs import known_labels, label_callers
from service.logs.transactions import writing

MAX_AGE_S = 7 * 24 * 3600.0
_LEFT_OF_BYTES = 0.9  # the share that is kept if the table is too large


def forget_old(connection: sqlite3.Connection, *, max_answers: int) -> None:
    """Remove answers older than a week, and the oldest beyond `max_answers`."""
    before_s = time.time() - MAX_AGE_S
    connection.execute("DELETE FROM answers WHERE answered_at_s < ?", (before_s,))
    connection.execute("DELETE FROM answers WHERE id <= (SELECT max(id) FROM answers) - ?", (max_answers,))
    connection.execute(known_labels.FORGET, (before_s,))
    connection.execute(label_callers.FORGET, (before_s,))


def forget_large(connection: sqlite3.Connection, *, max_bytes: int) -> None:
    """Remove the oldest answers while the table is larger than `max_bytes`."""
    if bytes_in_use(connection) <= max_bytes:
        return
    with writing(connection):  # measured again: another process may have removed them meanwhile
        size = bytes_in_use(connection)
        too_many = 1 - _LEFT_OF_BYTES * max_bytes / size
        if size > max_bytes:
            connection.execute(
                "DELETE FROM answers WHERE id <= (SELECT min(id) + (max(id) - min(id)) * ? FROM answers)",
                (too_many,),
            )


def bytes_in_use(connection: sqlite3.Connection) -> int:
    """The size of the table, bytes."""
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
