"""Counts the labels of a version's answers: once on arrival, and again at every age that the answer reaches.

Labels of two versions can only be compared at the same age of their answers. If complaints arrive within a minute, and
silence means "right" after ten, nearly every label of a version that started two minutes ago says "wrong". So at each
of a few ages an answer counts once, by the label known then; a label that arrives later is late for that age. This
module does not know which age matters.
"""

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import orjson

from contract.metrics import CAME, CORRECT, LATE, WRONG
from service.logs import paired_labels
from service.logs.transactions import writing

MOST_AT_ONCE = 20_000  # answers counted at an age in one turn; the rest wait for the next turn

INDEX = "CREATE INDEX IF NOT EXISTS to_age ON answers (version, aging, answered_at_s) WHERE aging IS NOT NULL"
# Claiming and reading are one statement, so that no two workers count the same label.
CLAIM = """
UPDATE answers SET counted = 1,
    aging = (SELECT min(key) FROM json_each(:ages) WHERE value >= :now_s - answered_at_s AND answers.is_copy IS NOT 1)
WHERE version = :version AND truth IS NOT NULL AND counted = 0
RETURNING id, labels, truth, aging, is_copy, labelled_by
"""
# A cross join, because SQLite does not know that there are few ages.
OF_AGE = """
SELECT answers.id, labels, truth, aging, answered_at_s, labelled_by FROM json_each(:ages) AS age CROSS JOIN answers
WHERE version = :version AND aging = age.key AND answered_at_s <= :now_s - age.value
LIMIT :most
"""
GROW = "UPDATE answers SET aging = ? WHERE id = ?"


@dataclass(slots=True)
class Counted:
    """New labels, each counted by one row of its request."""

    as_they_came: Counter[tuple[str, str]] = field(default_factory=Counter)  # on arrival, by outcome and caller
    by_age: Counter[tuple[float, str, str]] = field(default_factory=Counter)  # by age, seconds, outcome and caller
    set_aside: int = 0  # labels that cannot be compared with their answers; they are not counted


def begin(connection: sqlite3.Connection) -> None:
    """Prepare the table, which may come from a Bento with an older copy of this file."""
    for column in ("aging INTEGER", "labelled_by TEXT"):
        with suppress(sqlite3.OperationalError):
            connection.execute(f"ALTER TABLE answers ADD COLUMN {column}")
    connection.execute(INDEX)


def take(
    connection: sqlite3.Connection,
    version: str,
    is_same: Callable[[object, object], bool],
    ages_s: Sequence[float],
    now_s: float,
) -> Counted:
    """Labels of `version` that arrived, or whose answers reached one of `ages_s`, since the last call.

    The table records what was counted, for all processes of a version: a process that dies may lose what it has taken,
    but no label counts twice at an age.

    Args:
        ages_s: ages in seconds, rising, above 0.
        now_s: Unix seconds.
    """
    counted = Counted()
    asked = {"version": version, "ages": orjson.dumps(ages_s).decode(), "now_s": now_s}
    with writing(connection):
        claimed = connection.execute(CLAIM, asked).fetchall()
        paired_labels.find(connection, [row for row, *_ in claimed], is_same)
    for row, labels, truth, aging, is_copy, caller in claimed:
        if is_copy:
            continue  # the label of a copy counts only in pairs
        outcome = _outcome(labels, truth, is_same)
        if outcome is None:
            counted.set_aside += 1
            connection.execute(GROW, (None, row))
            continue
        counted.as_they_came[outcome, caller or ""] += 1
        passed = len(ages_s) if aging is None else aging
        counted.by_age.update((age_s, LATE, "") for age_s in ages_s[:passed])
        counted.by_age.update((age_s, CAME, "") for age_s in ages_s[passed:])
    if connection.execute(OF_AGE, {**asked, "most": 1}).fetchone() is None:  # a read does not block other processes
        return counted
    grown = []
    with writing(connection):
        of_age = connection.execute(OF_AGE, {**asked, "most": MOST_AT_ONCE})
        for row, labels, truth, aging, answered_at_s, caller in of_age:
            reached = sum(age_s <= now_s - answered_at_s for age_s in ages_s)
            outcome = _outcome(labels, truth, is_same)
            if outcome is None:
                counted.set_aside += 1
                reached = len(ages_s)
            else:
                counted.by_age.update((age_s, outcome, caller or "") for age_s in ages_s[aging:reached])
            grown.append((reached if reached < len(ages_s) else None, row))
        connection.executemany(GROW, grown)
    return counted


def _outcome(labels: str, truth: str, is_same: Callable[[object, object], bool]) -> str | None:
    """Whether one row of a request, drawn at random, was right; None: the truth is not about this answer.

    Rows of one request are often alike, so they are not independent events.
    """
    try:
        rows = list(zip(orjson.loads(labels), orjson.loads(truth), strict=True))
        return CORRECT if is_same(*random.choice(rows)) else WRONG  # noqa: S311 - not a secret
    except Exception:  # noqa: BLE001 - another Bento may have written anything
        return None
