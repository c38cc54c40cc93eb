"""Counts how often two versions gave different answers to a mirrored request, which both answer.

Each version's processes count the pairs that include it. One row of each pair counts, drawn at random: rows of one
request are often alike, so they are not independent events. This module does not know which version is the shadow.
"""

import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest

import orjson

from service.logs.transactions import writing

MOST_AT_ONCE = 20_000  # answers compared at a time; a version that is further behind skips the oldest

SCHEMA = """
CREATE TABLE IF NOT EXISTS compared (
    version TEXT PRIMARY KEY,
    up_to INTEGER NOT NULL     -- the newest answers.id that any process of this version has compared
) WITHOUT ROWID
"""
BEGIN = "INSERT OR IGNORE INTO compared VALUES (?, (SELECT coalesce(max(id), 0) FROM answers))"
SPAN = "SELECT up_to, (SELECT coalesce(max(id), 0) FROM answers) FROM compared WHERE version = ?"
# A request id that is used again replaces an answer and adds no row, so a pair of versions is compared once for each
# request id. The bodies must be the same, because a caller may give one id to several requests. A keyed and a plain
# checksum cannot be compared.
PAIRS = """
SELECT new.labels, known.labels
FROM answers AS new JOIN answers AS known
    ON known.request_id = new.request_id AND known.version <> new.version AND known.id < new.id
WHERE new.id > :after AND :version IN (new.version, known.version)
    AND (new.body_crc = known.body_crc OR new.is_keyed IS NOT known.is_keyed)
"""
ADVANCE = "UPDATE compared SET up_to = :newest WHERE version = :version"


def begin(connection: sqlite3.Connection, version: str) -> None:
    """Start to compare the answers that `version` gives from now on."""
    connection.execute(SCHEMA)
    connection.execute(BEGIN, (version,))


@dataclass(slots=True)
class Compared:
    """Requests that two versions answered, each once."""

    same: int = 0
    different: int = 0
    set_aside: int = 0  # answers that cannot be compared


def take(connection: sqlite3.Connection, version: str, is_same: Callable[[object, object], bool]) -> Compared:
    """Requests that `version` and another version answered since the last call.

    The processes of a version share one position in the table. The transaction that reads the pairs advances it, so a
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
    """Whether two answers agree on one row, drawn at random; None: they cannot be compared."""
    try:
        rows = list(zip_longest(orjson.loads(one), orjson.loads(other)))
        return bool(is_same(*random.choice(rows)))  # noqa: S311 - not a secret
    except Exception:  # noqa: BLE001 - another Bento may have written anything
        return None
