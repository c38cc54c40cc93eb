"""Counts which version was right, for requests that two versions answered and only one answered correctly.

Such pairs distinguish two versions with far fewer labels than two error ratios do, and a late label is late for both
versions. A pair is found when the label of its second answer is counted. It waits in the table until a process of each
version has counted it.
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
    better INTEGER NOT NULL,   -- requests that only this version answered correctly and no process has counted yet
    worse INTEGER NOT NULL     -- the same for requests that only the other version answered correctly
) WITHOUT ROWID
"""
# A second table, because versions from Bentos with an older copy of this file still count by the first one.
BY_CALLER = """
CREATE TABLE IF NOT EXISTS paired_labels_by_caller (
    version TEXT NOT NULL,
    caller TEXT NOT NULL,      -- the caller that labelled
    better INTEGER NOT NULL,
    worse INTEGER NOT NULL,
    PRIMARY KEY (version, caller)
) WITHOUT ROWID
"""
# The bodies must be the same, because a caller may give one id to several requests. A keyed and a plain checksum cannot
# be compared.
PAIRS = """
SELECT mine.version, mine.labels, other.version, other.labels, mine.truth,
    coalesce(mine.labelled_by, other.labelled_by, '')
FROM json_each(:rows) AS row JOIN answers AS mine ON mine.id = row.value JOIN answers AS other
    ON other.request_id = mine.request_id AND other.version <> mine.version
WHERE other.counted = 1 AND other.truth = mine.truth
    AND (other.body_crc = mine.body_crc OR other.is_keyed IS NOT mine.is_keyed)
"""
ADD = """
INSERT INTO paired_labels VALUES (?, ?, ?)
ON CONFLICT (version) DO UPDATE SET better = better + excluded.better, worse = worse + excluded.worse
"""
ADD_BY_CALLER = """
INSERT INTO paired_labels_by_caller VALUES (?, ?, ?, ?)
ON CONFLICT (version, caller) DO UPDATE SET better = better + excluded.better, worse = worse + excluded.worse
"""
WAITING = "SELECT better, worse FROM paired_labels WHERE version = ? AND better + worse > 0"
TAKEN = "DELETE FROM paired_labels WHERE version = ?"
OF_CALLERS = "DELETE FROM paired_labels_by_caller WHERE version = ? RETURNING caller, better, worse"


def begin(connection: sqlite3.Connection) -> None:
    """Prepare the tables."""
    connection.execute(SCHEMA)
    connection.execute(BY_CALLER)


def find(connection: sqlite3.Connection, rows: Sequence[int], is_same: Callable[[object, object], bool]) -> None:
    """Find the pairs of answers whose labels are counted in this transaction.

    Args:
        rows: the `answers.id` of the answers.
    """
    found: Counter[tuple[str, str, str]] = Counter()
    pairs = connection.execute(PAIRS, {"rows": orjson.dumps(rows).decode()})
    for version, labels, other, other_labels, truth, caller in pairs:
        is_right, is_other_right = _drawn(labels, other_labels, truth, is_same)
        if is_right != is_other_right:
            found[version, caller, BETTER if is_right else WORSE] += 1
            found[other, caller, WORSE if is_right else BETTER] += 1
    for version, caller in {(version, caller) for version, caller, _ in found}:
        counts = found[version, caller, BETTER], found[version, caller, WORSE]
        connection.execute(ADD, (version, *counts))
        connection.execute(ADD_BY_CALLER, (version, caller, *counts))


def take(connection: sqlite3.Connection, version: str) -> Counter[tuple[str, str]]:
    """Requests since the last call that only `version`, or only the other version, answered correctly.

    Returns: the requests by outcome and by the caller that labelled; an empty name: another process did not record it.
    A worker that dies may lose what it has taken, but nothing is counted twice.
    """
    if connection.execute(WAITING, (version,)).fetchone() is None:  # a read does not block other processes
        return Counter()
    with writing(connection):
        better, worse = connection.execute(WAITING, (version,)).fetchone() or (0, 0)
        connection.execute(TAKEN, (version,))
        by_caller = connection.execute(OF_CALLERS, (version,)).fetchall()
    taken: Counter[tuple[str, str]] = Counter()
    for caller, *counts in by_caller:
        taken.update({(BETTER, caller): counts[0], (WORSE, caller): counts[1]})
    taken.update({(BETTER, ""): better, (WORSE, ""): worse})
    taken.subtract({(BETTER, ""): sum(each[1] for each in by_caller), (WORSE, ""): sum(each[2] for each in by_caller)})
    return +taken


def _drawn(one: str, other: str, truth: str, is_same: Callable[[object, object], bool]) -> tuple[bool, bool]:
    """Whether each of two answers is right about one row, drawn at random because rows are often alike."""
    try:
        first, second, true = random.choice(  # noqa: S311 - not a secret
            list(zip(orjson.loads(one), orjson.loads(other), orjson.loads(truth), strict=True))
        )
        return bool(is_same(first, true)), bool(is_same(second, true))
    except Exception:  # noqa: BLE001 - another Bento may have written anything; unfit labels are counted elsewhere
        return False, False
