"""Changes to the file of a ledger are detected, even if the triggers were removed."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rollout.errors import LedgerDamaged
from rollout.ledger.chain import START
from rollout.ledger.check import check
from rollout.ledger.copies import copy
from rollout.ledger.events import Noted, Promoted
from rollout.ledger.ledger import Ledger
from tests.support.old_ledgers import restored

TRIGGERS = ("events_are_never_changed", "events_are_never_deleted", "events_are_never_replaced")
LARGE = "x" * 40_000  # is stored packed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    with closing(Ledger(path)) as ledger:
        ledger.append(*(Noted(at_s=float(at_s), topic="fleet", text=f"{at_s} {LARGE}") for at_s in range(3)))
        ledger.append(Noted(at_s=3.5, topic="fleet", text="short"))
    return path


def attack(path: Path, statement: str, *values: object) -> None:
    """Change the file as its owner can, without its triggers."""
    with closing(sqlite3.connect(path)) as db, db:
        for name in TRIGGERS:
            db.execute(f"DROP TRIGGER {name}")
        db.execute(statement, values)


def head_of(path: Path) -> str:
    with closing(Ledger(path, read_only=True)) as ledger:
        return ledger.head().shown


def test_an_unchanged_ledger_keeps_its_hash_wherever_it_is(path: Path, tmp_path: Path) -> None:
    """The hash shown for an event stays valid after the ledger is opened again, copied or continued."""
    shown = check(path).head.shown
    copy(path, tmp_path / "copy.db")
    with closing(Ledger(path)) as ledger:
        assert (ledger.last.events, ledger.last.shown) == (4, shown)
        ledger.append(Noted(at_s=4.0, topic="fleet", text="later"))
        assert ledger.last.events == 5
    assert check(tmp_path / "copy.db").head.shown == shown
    assert check(path, at=4).head.shown == shown
    assert check(path).head.shown not in (shown, START.shown)


@pytest.mark.parametrize(
    ("statement", "event"),
    [
        ("UPDATE events SET at_s = 1e9 WHERE seq = 2", 2),
        ("UPDATE events SET release = 7 WHERE seq = 4", 4),
        ("UPDATE events SET kind = 'resumed' WHERE seq = 4", 4),
        ("UPDATE events SET data = replace(data, 'short', 'other') WHERE seq = 4", 4),
        ("UPDATE events SET packed = (SELECT packed FROM events WHERE seq = 1) WHERE seq = 2", 2),
        ("UPDATE events SET chain = zeroblob(32) WHERE seq = 1", 1),
        ("UPDATE events SET chain = NULL WHERE seq > 2", 3),
        ("UPDATE events SET chain = NULL", 1),
        ("UPDATE events SET chain = NULL, schema = 5 WHERE seq = 4", 4),
        ("INSERT INTO events (at_s, kind, data, schema) SELECT at_s, kind, data, schema FROM events WHERE seq = 4", 5),
    ],
)
def test_the_first_changed_event_is_named(path: Path, statement: str, event: int) -> None:
    attack(path, statement)
    with closing(Ledger(path, read_only=True)) as ledger, pytest.raises(LedgerDamaged, match="was changed") as refused:
        ledger.check_chain()
    assert f"event {event} " in refused.value.saw


def test_a_forged_decision_is_detected(path: Path) -> None:
    """It is written as Kanaria writes it, with a hash that the forger chose."""
    forged = Promoted(at_s=3.6, release=1, reason="all is well")
    attack(
        path,
        """INSERT INTO events (at_s, release, kind, data, schema, chain)
        VALUES (3.6, 1, 'promoted', ?, 6, randomblob(32))""",
        forged.stored(),
    )
    with pytest.raises(LedgerDamaged, match="was changed"):
        check(path)


def test_a_truncated_ledger_is_detected_by_a_hash_kept_elsewhere(path: Path) -> None:
    """The remaining events are consistent, so only a number that was shown before reveals the loss."""
    attack(path, "DELETE FROM events WHERE seq = 4")
    assert check(path).events == 3
    with pytest.raises(LedgerDamaged, match="lacks events"):
        check(path, at=4)


@pytest.mark.parametrize("name", ["ledger-0", "ledger-1-shadow"])
def test_events_of_older_versions_are_covered_from_the_next_event_on(tmp_path: Path, name: str) -> None:
    old = restored(name, tmp_path / "ledger.db")
    known = head_of(old)
    with closing(Ledger(old)) as ledger:
        assert ledger.last.shown == known
        ledger.append(Noted(at_s=1e10, topic="fleet", text="later"))
    assert check(old).head.shown == head_of(old)
    attack(old, "UPDATE events SET at_s = at_s + 1 WHERE seq = 1")
    with pytest.raises(LedgerDamaged, match="was changed"):
        check(old)


def test_another_ledger_in_its_place_is_detected(path: Path, tmp_path: Path) -> None:
    """All hashes of the other ledger are valid, but the folder knows the start of its own. Copies elsewhere pass."""
    assert check(path).events == 4
    (tmp_path / "elsewhere").mkdir()
    with closing(Ledger(tmp_path / "elsewhere" / "other.db")) as other:
        other.append(Noted(at_s=9.0, topic="fleet", text="another history"))
    copy(tmp_path / "elsewhere" / "other.db", tmp_path / "copy.db")
    assert check(tmp_path / "copy.db").events == 1
    (tmp_path / "copy.db").replace(path)
    with pytest.raises(LedgerDamaged, match="another ledger"):
        check(path)
