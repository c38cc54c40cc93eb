"""How much of the table of answers is kept: the oldest go where it becomes too old, too long or too large."""

import sqlite3
import time

from service.logs import known_labels, label_callers
from service.logs.transactions import writing

MAX_AGE_S = 7 * 24 * 3600.0
_LEFT_OF_BYTES = 0.9  # where there are too many


def forget_old(connection: sqlite3.Connection, *, max_answers: int) -> None:
    """Forget what is older than a week, and the oldest of more than `max_answers`."""
    before_s = time.time() - MAX_AGE_S
    connection.execute("DELETE FROM answers WHERE answered_at_s < ?", (before_s,))
    connection.execute("DELETE FROM answers WHERE id <= (SELECT max(id) FROM answers) - ?", (max_answers,))
    connection.execute(known_labels.FORGET, (before_s,))
    connection.execute(label_callers.FORGET, (before_s,))


def forget_large(connection: sqlite3.Connection, *, max_bytes: int) -> None:
    """Forget the oldest answers while all together are larger than `max_bytes`."""
    if bytes_in_use(connection) <= max_bytes:
        return
    with writing(connection):  # weighed again: another process may have forgotten them meanwhile
        size = bytes_in_use(connection)
        too_many = 1 - _LEFT_OF_BYTES * max_bytes / size
        if size > max_bytes:
            connection.execute(
                "DELETE FROM answers WHERE id <= (SELECT min(id) + (max(id) - min(id)) * ? FROM answers)",
                (too_many,),
            )


def bytes_in_use(connection: sqlite3.Connection) -> int:
    """How large the table is, bytes."""
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
