"""Count how often two versions gave different answers to one request: both answer a mirrored request.

Each version's processes count the pairs that it is part of, each by one of its rows, drawn at random: rows of one
request are often alike, so all of them would not be independent events. Which of the two versions is the shadow is not
known here.
"""

import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest

import orjson

from service.logs.transactions import writing

MOST_AT_ONCE = 20_000  # answers compared at a time; a version that missed more of them skips the oldest

SCHEMA = """
CREATE TABLE IF NOT EXISTS compared (
    version TEXT PRIMARY KEY,
    up_to INTEGER NOT NULL     -- the newest answers.id that any process of this version has compared
) WITHOUT ROWID
"""
BEGIN = "INSERT OR IGNORE INTO compared VALUES (?, (SELECT coalesce(max(id), 0) FROM answers))"
SPAN = "SELECT up_to, (SELECT coalesce(max(id), 0) FROM answers) FROM compared WHERE version = ?"
# A request id that is used again replaces an answer and adds no row, so for each request id a pair of versions is
# compared once. The bodies must be the same, because a caller may give one id to several requests; checksums of two
# kinds cannot tell.
PAIRS = """
SELECT new.labels, known.labels
FROM answers AS new JOIN answers AS known
    ON known.request_id = new.request_id AND known.version <> new.version AND known.id < new.id
WHERE new.id > :after AND :version IN (new.version, known.version)
    AND (new.body_crc = known.body_crc OR new.is_keyed IS NOT known.is_keyed)
"""
ADVANCE = "UPDATE compared SET up_to = :newest WHERE version = :version"


def begin(connection: sqlite3.Connection, version: str) -> None:
    """Start to compare the answers of `version` that are given from now on."""
    connection.execute(SCHEMA)
    connection.execute(BEGIN, (version,))


@dataclass(slots=True)
class Compared:
    """Requests that two versions answered, each once."""

    same: int = 0
    different: int = 0
    set_aside: int = 0  # answers that cannot be compared


def take(connection: sqlite3.Connection, version: str, is_same: Callable[[object, object], bool]) -> Compared:
    """Requests that `version` and another version answered, since the last call.

    The processes of a version share one position in the table, advanced in the transaction that reads the pairs: a
    worker that dies may lose what it has taken, but nothing is counted twice.
    """
    compared = Compared()
    with writing(connection):
        up_to, newest = connection.execute(SPAN, (version,)).fetchone()
        if newest != up_to:
            new = {"version": version, "newest": newest, "after": max(up_to, newest - MOST_AT_ONCE)}
            for one, other in connection.execute(PAIRS, new):
                is_alike = _is_alike(one, other, is_same)
                compared.same += is_alike is True
                compared.different += is_alike is False
                compared.set_aside += is_alike is None
            connection.execute(ADVANCE, new)
    return compared


def _is_alike(one: str, other: str, is_same: Callable[[object, object], bool]) -> bool | None:
    """Whether one row of two answers, drawn at random, is the same; None: they cannot be compared."""
    try:
        rows = list(zip_longest(orjson.loads(one), orjson.loads(other)))
        return bool(is_same(*random.choice(rows)))  # noqa: S311 - no secret
    except Exception:  # noqa: BLE001 - whatever another Bento wrote
        return None
