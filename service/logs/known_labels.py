"""Records the labels that the versions on a machine can give. A truth that none of them knows is refused.

A canary may have a label that stable lacks, and feedback for either may reach the other, so every version accepts the
labels of all. A version from a Bento with an older copy of this file records nothing: truths about its answers are not
checked.
"""

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import orjson

SCHEMA = """
CREATE TABLE IF NOT EXISTS known_labels (
    version TEXT PRIMARY KEY,
    labels TEXT NOT NULL,      -- JSON array
    seen_at_s REAL NOT NULL    -- when a process of that version last recorded them
) WITHOUT ROWID
"""
SAY = "INSERT OR REPLACE INTO known_labels VALUES (?, ?, ?)"
FORGET = "DELETE FROM known_labels WHERE seen_at_s < ?"


def say(connection: sqlite3.Connection, version: str, labels: Collection[str], *, at_s: float) -> None:
    """Record which labels `version` can give."""
    connection.execute(SAY, (version, orjson.dumps(list(labels)).decode(), at_s))


@dataclass(frozen=True, slots=True)
class KnownLabels:
    """The labels that the versions have recorded."""

    versions: frozenset[str]
    labels: frozenset[str]  # of all versions

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> Self:
        said = connection.execute("SELECT version, labels FROM known_labels").fetchall()
        labels = (label for _, own in said for label in orjson.loads(own))
        return cls(frozenset(version for version, _ in said), frozenset(labels))

    def may_be_true(self, truth: str, versions: Collection[str]) -> bool:
        """Whether the labels in `truth`, a JSON array, may be the truth about an answer of `versions`."""
        return not self.versions.issuperset(versions) or self.labels.issuperset(orjson.loads(truth))


NOTHING_KNOWN = KnownLabels(frozenset(), frozenset())
