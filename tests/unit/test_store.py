"""The ledger keeps everything, changes nothing, and counts every request once."""

import sqlite3
from pathlib import Path

import pytest

from rollout import events as e
from rollout.affected import Progress
from rollout.errors import LedgerError
from rollout.interfaces import Reading
from rollout.judge import Pair
from rollout.spec import RolloutSpec
from rollout.store import Ledger

EVENTS: tuple[e.Event, ...] = (
    e.StableSet(at_s=1.0, tag="m:v1"),
    e.ReleaseRequested(at_s=2.0, release=1, tag="m:v2", stable="m:v1", spec=RolloutSpec(steps="auto"), by="ann"),
    e.Noted(at_s=3.0, release=1, topic="fleet", text="slow start"),
)
READING = Reading(at_s=4.0, counters={("host:1", "m:v1", "errors"): Pair(1, 20)})


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    """Events come back typed, equal and in order, also for a second reader."""
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append(*EVENTS)
    reader = Ledger(tmp_path / "ledger.db", read_only=True)
    assert tuple(reader.events()) == EVENTS
    assert tuple(reader.events(release=1)) == EVENTS[1:]
    reader.close()
    ledger.close()


def test_an_infinite_estimate_survives_the_ledger(tmp_path: Path) -> None:
    """ "Never at this base rate" is infinity, which plain JSON cannot say."""
    record = e.SignalRecord(
        verdict="inconclusive",
        log_e=0.0,
        threshold=4.6,
        stable=(1, 2),
        canary=(0, 1),
        excess_upper=1.0,
        more_requests_needed=float("inf"),
    )
    evidence = e.EvidenceRecord(verdict="inconclusive", reason="", log_e=0.0, threshold=4.6, signals={"errors": record})
    promoted = e.Promoted(at_s=1.0, release=1, reason="", evidence=evidence)
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append(promoted)
    assert tuple(ledger.events()) == (promoted,)
    ledger.close()


def test_a_weight_of_whole_percents_is_still_read() -> None:
    """Ledgers that were written before weights had decimals hold such."""
    old = '{"at_s":1.0,"release":1,"kind":"step_entered","step":0,"weight_percent":5,"mirror":false,"reason":""}'
    entered = e.EVENT.validate_json(old)
    assert entered == e.StepEntered(at_s=1.0, release=1, step=0, weight_percent=5, mirror=False, reason="")


@pytest.mark.parametrize("statement", ["UPDATE events SET at_s = 0", "DELETE FROM events"])
def test_history_cannot_be_changed(tmp_path: Path, statement: str) -> None:
    """Even somebody with the file open cannot rewrite what was decided."""
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append(*EVENTS)
    ledger.close()
    other = sqlite3.connect(tmp_path / "ledger.db")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        other.execute(statement)
    other.close()


def test_evidence_and_cursor_are_written_together(tmp_path: Path) -> None:
    """After a crash the counters go on from where the evidence ends."""
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.cursor() is None
    ledger.append(EVENTS[2], cursor=READING)
    assert ledger.cursor() == READING
    ledger.close()


def test_affected_users_are_written_with_the_evidence_and_leave_with_the_release(tmp_path: Path) -> None:
    """Each write adds to what is known of users; the end of the release leaves nothing of it, on disk neither."""
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.affected() is None
    ledger.append(affected=Progress(100, (0, 0), {b"key-of-ann": 1, b"key-of-bob": 0}))
    ledger.append(EVENTS[2], affected=Progress(200, (0, 2), {b"key-of-ann": 5}))
    assert ledger.affected() == Progress(200, (0, 2), {b"key-of-ann": 5, b"key-of-bob": 0})
    ledger.append(e.Ended(at_s=5.0, release=1, outcome="promoted"))
    assert ledger.affected() is None
    ledger.close()
    assert b"key-of" not in (tmp_path / "ledger.db").read_bytes()


def test_a_full_disk_says_so_and_leaves_the_ledger_whole(tmp_path: Path) -> None:
    """A write that does not fit is refused as a whole; what was written before stays readable."""
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append(*EVENTS)
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    long = e.Noted(at_s=5.0, topic="fleet", text="x" * 100_000)
    with pytest.raises(LedgerError, match="full"):
        ledger.append(EVENTS[0], long, cursor=READING)
    assert tuple(ledger.events()) == EVENTS
    assert ledger.cursor() is None
    ledger.close()


def test_a_missing_ledger_says_what_to_do(tmp_path: Path) -> None:
    """`kanaria why` before `kanaria up` is not a stack trace."""
    with pytest.raises(LedgerError, match="kanaria up"):
        Ledger(tmp_path / "none.db", read_only=True)


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    """A damaged file is named, not overwritten."""
    (tmp_path / "ledger.db").write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        Ledger(tmp_path / "ledger.db")
