"""Count which of two versions was right, where both answered a request and only one of them was.

Such requests tell two versions apart with far fewer labels than two shares of wrong answers do, and a label that comes
late comes late for both. A pair is found when the second of its answers has its label counted, and waits in the table
until a process of each version has counted it.
"""

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence

import orjson

from contract.metrics import BETTER, WORSE
from service.logs.transactions import writing

SCHEMA = """
CREATE TABLE IF NOT EXISTS paired_labels (
    version TEXT PRIMARY KEY,
    better INTEGER NOT NULL,   -- requests that this version alone was right about, and no process has counted yet
    worse INTEGER NOT NULL     -- the same of requests that the other version alone was right about
) WITHOUT ROWID
"""
# The bodies must be the same, because a caller may give one id to several requests; checksums of two kinds cannot tell.
PAIRS = """
SELECT mine.version, mine.labels, other.version, other.labels, mine.truth
FROM json_each(:rows) AS row JOIN answers AS mine ON mine.id = row.value JOIN answers AS other
    ON other.request_id = mine.request_id AND other.version <> mine.version
WHERE other.counted = 1 AND other.truth = mine.truth
    AND (other.body_crc = mine.body_crc OR other.is_keyed IS NOT mine.is_keyed)
"""
ADD = """
INSERT INTO paired_labels VALUES (?, ?, ?)
ON CONFLICT (version) DO UPDATE SET better = better + excluded.better, worse = worse + excluded.worse
"""
WAITING = "SELECT better, worse FROM paired_labels WHERE version = ? AND better + worse > 0"
TAKEN = "DELETE FROM paired_labels WHERE version = ?"


def begin(connection: sqlite3.Connection) -> None:
    """Make the table ready."""
    connection.execute(SCHEMA)


def find(connection: sqlite3.Connection, rows: Sequence[int], is_same: Callable[[object, object], bool]) -> None:
    """Look for the pairs of answers whose labels begin to count in this transaction.

    Args:
        rows: their `answers.id`.
    """
    found: Counter[tuple[str, str]] = Counter()
    for version, labels, other, other_labels, truth in connection.execute(PAIRS, {"rows": orjson.dumps(rows).decode()}):
        is_right, is_other_right = _drawn(labels, other_labels, truth, is_same)
        if is_right != is_other_right:
            found[version, BETTER if is_right else WORSE] += 1
            found[other, WORSE if is_right else BETTER] += 1
    for version in {version for version, _ in found}:
        connection.execute(ADD, (version, found[version, BETTER], found[version, WORSE]))


def take(connection: sqlite3.Connection, version: str) -> tuple[int, int]:
    """Requests that `version` alone, and that the other version alone, was right about, since the last call.

    A worker that dies may lose what it has taken, but nothing is counted twice.
    """
    if connection.execute(WAITING, (version,)).fetchone() is None:  # reading keeps no other process waiting
        return 0, 0
    with writing(connection):
        better, worse = connection.execute(WAITING, (version,)).fetchone() or (0, 0)
        connection.execute(TAKEN, (version,))
    return better, worse


def _drawn(one: str, other: str, truth: str, is_same: Callable[[object, object], bool]) -> tuple[bool, bool]:
    """Whether each of two answers is right about one row, drawn at random: rows of one request are often alike."""
    try:
        first, second, true = random.choice(  # noqa: S311 - no secret
            list(zip(orjson.loads(one), orjson.loads(other), orjson.loads(truth), strict=True))
        )
        return bool(is_same(first, true)), bool(is_same(second, true))
    except Exception:  # noqa: BLE001 - whatever another Bento wrote; a label that fits no answer is counted elsewhere
        return False, False
