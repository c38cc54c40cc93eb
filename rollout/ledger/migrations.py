"""The schema numbers of the ledger, and how a ledger with an older number is read.

The number of the file is in `PRAGMA user_version`, the number of each event in its row. A migration brings the tables
to the next number once, when the controller opens the file. It does not change events: an audit record is never
rewritten. An event with an older number is upgraded each time it is read.

When the shape of an event changes, append a migration; a test compares the shape with the one in
`tests/data/ledger-schema.json`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rollout.ledger.events import EVENT, Event
from rollout.units import KEPT_IN_A_LEDGER

Json = dict[str, Any]  # an event as an older version stored it: only a migration knows what is in it


@dataclass(frozen=True, slots=True)
class Migration:
    """The step from one schema number to the next."""

    tables: tuple[str, ...]  # SQL statements, all carried out in one transaction
    event: Callable[[Json], Json]


def _evidence_of_the_judge(event: Json) -> Json:
    """0 to 1: counts and evidence become the judge's own types.

    Facts that were not stored then (when a signal first failed, its rate of requests) stay unknown.
    """
    if event["kind"] == "ticked":
        event["windows"] = {counts.pop("signal"): counts for counts in event.pop("counts")}
    evidence = event.get("evidence") or {}
    if event["kind"] == "rolled_back" and event["signal"] in evidence.get("signals", ()):
        evidence["failed_signal"] = event["signal"]
    return event


def _plan_without_warmup(event: Json) -> Json:
    """1 to 2: plans have `warmup`. In a release without it all windows were judged, and still are."""
    if event["kind"] == "release_requested":
        event["spec"].setdefault("warmup", 0.0)
    return event


def _plan_without_holdback(event: Json) -> Json:
    """2 to 3: plans have `holdback`. A promoted version that had all the traffic keeps it."""
    if event["kind"] == "release_requested":
        event["spec"].setdefault("holdback", 0.0)
    return event


def _as_it_is(event: Json) -> Json:
    """3 to 4: large events may be compressed; only the table changes.

    4 to 5: a release may restore a version (`restore`), and a rollback may leave out the quarantine.
    5 to 6: each new event has a hash over all events up to it, and no event can be replaced; only the table changes.
    6 to 7: labels are also counted by caller, and a judgement has the evidence without one caller.
    """
    return event


MIGRATIONS = (
    Migration(
        tables=("ALTER TABLE events ADD COLUMN schema INTEGER NOT NULL DEFAULT 0",), event=_evidence_of_the_judge
    ),
    Migration(tables=(), event=_plan_without_warmup),
    Migration(tables=(), event=_plan_without_holdback),
    Migration(tables=("ALTER TABLE events ADD COLUMN packed BLOB",), event=_as_it_is),
    Migration(tables=(), event=_as_it_is),
    Migration(
        tables=(
            "ALTER TABLE events ADD COLUMN chain BLOB",
            """CREATE TRIGGER events_are_never_replaced BEFORE INSERT ON events
    WHEN EXISTS (SELECT 1 FROM events WHERE seq = NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
        ),
        event=_as_it_is,
    ),
    Migration(tables=(), event=_as_it_is),
)
NUMBER = len(MIGRATIONS)  # the schema number that this version writes
CHAINED = 6  # from this number on, each event has a hash


def read_event(data: str, number: int) -> Event:
    """The event that a version with this schema `number` stored as `data`.

    Raises: ValueError, KeyError or TypeError for data that no version with this number writes.
    """
    if number == NUMBER:
        return EVENT.validate_json(data, context=KEPT_IN_A_LEDGER)
    event = json.loads(data)
    for migration in MIGRATIONS[number:]:
        event = migration.event(event)
    return EVENT.validate_json(json.dumps(event), context=KEPT_IN_A_LEDGER)
