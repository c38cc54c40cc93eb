"""How often two versions answered one request differently: a mirrored request is answered by both.

Called by `AnswerLog`, on its thread and its connection. Each version's processes count its pairs; which of two versions
is the shadow is known to the release alone.
"""

import sqlite3
from collections.abc import Callable
from itertools import zip_longest

import orjson

MOST_AT_ONCE = 20_000  # answers in one look; a version that was away for more of them does not compare the oldest

SCHEMA = """
CREATE TABLE IF NOT EXISTS compared (
    version TEXT PRIMARY KEY,
    up_to INTEGER NOT NULL     -- the newest answers.id that any process of this version has looked at
) WITHOUT ROWID
"""
BEGIN = "INSERT OR IGNORE INTO compared VALUES (?, (SELECT coalesce(max(id), 0) FROM answers))"
SPAN = "SELECT up_to, (SELECT coalesce(max(id), 0) FROM answers) FROM compared WHERE version = ?"
# An id that is used again replaces an answer and is not new, so of one request id each pair of versions is compared
# once; and only on one body, since a caller may give one id to several requests.
PAIRS = """
SELECT new.labels, known.labels
FROM answers AS new JOIN answers AS known
    ON known.request_id = new.request_id AND known.version <> new.version AND known.id < new.id
WHERE new.id > :after AND :version IN (new.version, known.version) AND new.body_crc = known.body_crc
"""
ADVANCE = "UPDATE compared SET up_to = :newest WHERE version = :version"


def begin(connection: sqlite3.Connection, version: str) -> None:
    """Make `version` known: answers given from now on are compared."""
    connection.execute(SCHEMA)
    connection.execute(BEGIN, (version,))


def take(connection: sqlite3.Connection, version: str, is_same: Callable[[object, object], bool]) -> tuple[int, int]:
    """Rows that `version` and another version answered alike and differently, each given out once.

    The processes of a version share one place in the file, moved on in the transaction that reads the pairs: a worker
    that dies may lose what it has taken, but nothing is counted twice.
    """
    same = different = 0
    connection.execute("BEGIN IMMEDIATE")
    try:
        up_to, newest = connection.execute(SPAN, (version,)).fetchone()
        if newest != up_to:
            new = {"version": version, "newest": newest, "after": max(up_to, newest - MOST_AT_ONCE)}
            for one, other in connection.execute(PAIRS, new):
                for label, known in zip_longest(orjson.loads(one), orjson.loads(other)):
                    same += is_same(label, known)
                    different += not is_same(label, known)
            connection.execute(ADVANCE, new)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return same, different
