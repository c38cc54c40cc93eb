"""The ledger keeps all events unchanged and counts every request once."""

import json
import math
import os
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollout.errors import LedgerDamaged, LedgerError, LedgerGone, LedgerTaken, NoLedger
from rollout.judge import Judgement, Pair, SignalJudgement, Verdict, Window
from rollout.judge.judge import Judge
from rollout.judge.types import Difference
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.migrations import NUMBER
from rollout.signals.counters import Reading
from rollout.signals.sticky_users import Progress
from rollout.spec import RolloutSpec
from rollout.ui.cli.reading import stable_version
from tests.support.old_ledgers import restored

EVENTS: tuple[e.Event, ...] = (
    e.StableSet(at_s=1.0, tag="m:v1"),
    e.ReleaseRequested(at_s=2.0, release=1, tag="m:v2", stable="m:v1", spec=RolloutSpec(steps="auto"), by="ann"),
    e.Noted(at_s=3.0, release=1, topic="fleet", text="slow start"),
)
INCONCLUSIVE = SignalJudgement(
    Verdict.INCONCLUSIVE, 0.0, 4.6, Pair(1, 2), Pair(0, 1), excess_upper=1.0, more_requests_needed=float("inf")
)
JUDGEMENT = Judgement(Verdict.INCONCLUSIVE, reason="", log_e=0.0, threshold=4.6, signals={"errors": INCONCLUSIVE})
TICK = e.Ticked(
    at_s=3.0,
    release=1,
    window_s=2.0,
    weight_percent=5,
    mirror=False,
    windows=(Window(3.0, 2.0, "errors", Pair(1, 2), Pair(0, 1)),),
    evidence=JUDGEMENT,
    action="Hold",
    why="",
)
READING = Reading(at_s=4.0, counters={("host:1", "m:v1", "errors"): Pair(1, 20)})


def test_events_are_read_back(tmp_path: Path) -> None:
    """They come back typed, equal and in order, and for a second reader too."""
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append(*EVENTS)
    reader = Ledger(tmp_path / "ledger.db", read_only=True)
    assert tuple(reader.events()) == EVENTS
    assert tuple(reader.events(release=1)) == EVENTS[1:]
    reader.close()
    ledger.close()


def test_an_infinite_estimate_survives_the_ledger(tmp_path: Path) -> None:
    """ "Never at this base rate" is infinity, for which JSON has no number."""
    promoted = e.Promoted(at_s=1.0, release=1, reason="", evidence=JUDGEMENT)
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append(promoted, TICK)
    assert tuple(ledger.events()) == (promoted, TICK)
    ledger.close()


def test_every_optional_field_of_a_tick_defaults_to_none() -> None:
    """This holds for the event and for everything inside it."""

    def missing(schema: Any, at: str) -> Iterator[str]:
        for name in schema.get("required", ()):
            if any(kind.get("type") == "null" for kind in schema["properties"][name].get("anyOf", ())):
                yield f"{at}.{name}"

    schema = e.Ticked.model_json_schema()
    assert [
        *missing(schema, "Ticked"),
        *(gap for name, part in schema["$defs"].items() for gap in missing(part, name)),
    ] == []


def test_means_without_canary_numbers_are_read_back(tmp_path: Path) -> None:
    """In the first window of a release stable has answered and the canary has not yet."""
    difference = Difference(least=-math.inf, most=math.inf, worst=math.inf, stable=3.0)
    signal = SignalJudgement(Verdict.NO_DATA, 0.0, 4.6, Pair(0, 9), Pair(0, 0), difference=difference)
    evidence = Judgement(Verdict.NO_DATA, "no data", 0.0, 4.6, {"typical_latency": signal})
    tick = e.Ticked(
        at_s=5,
        release=1,
        window_s=5,
        weight_percent=5,
        mirror=False,
        windows=(),
        evidence=evidence,
        action="Hold",
        why="",
    )
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append(tick)
    ledger.close()
    ledger = Ledger(tmp_path / "ledger.db")
    assert [event for event in ledger.events() if isinstance(event, e.Ticked)] == [tick]
    ledger.close()


def test_a_tick_stores_its_time_once() -> None:
    """Its windows do not repeat the time, and unknown fields are omitted: most of a ledger is ticks."""
    stored = json.loads(TICK.stored())
    assert stored["windows"] == {"errors": {"stable": [1, 2], "canary": [0, 1]}}
    assert "decided_at_s" not in stored["evidence"]["signals"]["errors"]
    assert "user_phi" not in stored
    assert e.EVENT.validate_json(TICK.stored()) == TICK


def test_a_weight_stored_as_whole_percent_is_still_read() -> None:
    """Ledgers from before weights had decimals hold whole percents."""
    old = '{"at_s":1.0,"release":1,"kind":"step_entered","step":0,"weight_percent":5,"mirror":false,"reason":""}'
    entered = e.EVENT.validate_json(old)
    assert entered == e.StepEntered(at_s=1.0, release=1, step=0, weight_percent=5, mirror=False, reason="")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET at_s = 0",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events (seq, at_s, kind, data) VALUES (2, 0, 'noted', '{}')",
        "REPLACE INTO events SELECT seq, 0, release, kind, data, schema, packed, chain FROM events",
        "INSERT INTO events (seq, at_s, kind, data) VALUES (2, 0, 'noted', '{}') ON CONFLICT DO UPDATE SET at_s = 0",
    ],
)
def test_stored_events_cannot_be_changed(tmp_path: Path, statement: str) -> None:
    """Even a program that opens the file cannot rewrite a decision."""
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append(*EVENTS)
    ledger.close()
    other = sqlite3.connect(tmp_path / "ledger.db")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        other.execute(statement)
    other.close()


def test_evidence_and_cursor_are_written_together(tmp_path: Path) -> None:
    """After a crash the counts continue where the evidence ends."""
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.cursor() is None
    ledger.append(EVENTS[2], cursor=READING)
    assert ledger.cursor() == READING
    ledger.close()


def test_affected_users_are_stored_with_the_evidence_and_deleted_with_the_release(tmp_path: Path) -> None:
    """Each write adds to what is known about users; the end of the release deletes all of it, from the disk too."""
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.affected() is None
    ledger.append(affected=Progress(100, (0, 0), {b"key-of-ann": 1, b"key-of-bob": 0}))
    ledger.append(EVENTS[2], affected=Progress(200, (0, 2), {b"key-of-ann": 5}))
    assert ledger.affected() == Progress(200, (0, 2), {b"key-of-ann": 5, b"key-of-bob": 0})
    ledger.append(e.Ended(at_s=5.0, release=1, outcome="promoted"))
    assert ledger.affected() is None
    ledger.close()
    assert b"key-of" not in (tmp_path / "ledger.db").read_bytes()


def test_a_full_disk_is_reported_and_leaves_the_ledger_consistent(tmp_path: Path) -> None:
    """A write that does not fit is refused as a whole; earlier events stay readable."""
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append(*EVENTS)
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    long = e.Noted(at_s=5.0, topic="fleet", text=os.urandom(100_000).hex())
    with pytest.raises(LedgerError, match="full"):
        ledger.append(EVENTS[0], long, cursor=READING)
    assert tuple(ledger.events()) == EVENTS
    assert ledger.cursor() is None
    ledger.close()


def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    """Python's own errors are explained like those of SQLite."""
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.cursor()


def test_a_missing_ledger_says_what_to_do(tmp_path: Path) -> None:
    """`kanaria why` before `kanaria up` prints a message instead of a traceback."""
    with pytest.raises(LedgerError, match="kanaria up"):
        Ledger(tmp_path / "none.db", read_only=True)


@pytest.fixture
def writable_by_nobody() -> Iterator[Path]:
    """A folder with a ledger in which this process cannot write, not even as root."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        ledger = Ledger(folder / "ledger.db")
        ledger.append(*EVENTS)
        ledger.close()
        (folder / "ledger.db").chmod(0o444)
        folder.chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_folder_that_cannot_be_written_is_reported(writable_by_nobody: Path, read_only: bool) -> None:
    """SQLite has to write beside the ledger even to read it; the error says where to look."""
    before = (writable_by_nobody / "ledger.db").read_bytes()
    with pytest.raises(LedgerError, match="permissions of the file and its folder"):
        Ledger(writable_by_nobody / "ledger.db", read_only=read_only)
    assert (writable_by_nobody / "ledger.db").read_bytes() == before


def other_database(path: Path) -> None:
    """A database of another program."""
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE recipes (name TEXT)")
    db.commit()
    db.close()


def truncated(path: Path) -> None:
    """A ledger without its last part."""
    restored("ledger-0", path)
    path.write_bytes(path.read_bytes()[:10_000])


def overwritten(path: Path) -> None:
    """A ledger with other bytes in its middle."""
    restored("ledger-0", path)
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * 20_000 + whole[24_096:])


def of_a_newer_version(path: Path) -> None:
    """A ledger with a schema number that this version does not know."""
    restored("ledger-0", path)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {NUMBER + 1}")
    db.close()


def text(path: Path) -> None:
    """Not a database."""
    path.write_bytes(b"not a database" * 100)


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (text, "file is not a database"),
        (other_database, "this file is not a ledger"),
        (truncated, "malformed"),
        (of_a_newer_version, "newer version of Kanaria"),
        (Path.mkdir, "cannot be opened"),
    ],
)
def test_a_file_that_is_not_a_ledger_is_refused_and_not_changed(
    tmp_path: Path, make: Callable[[Path], None], what: str, read_only: bool
) -> None:
    """The error names the file."""
    path = tmp_path / "ledger.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(LedgerError, match=what) as refused:
        Ledger(path, read_only=read_only)
    assert str(path) in refused.value.saw
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_damaged_part_of_a_ledger_is_found_when_it_is_read(tmp_path: Path) -> None:
    """The error says what can be done."""
    overwritten(tmp_path / "ledger.db")
    ledger = Ledger(tmp_path / "ledger.db", read_only=True)
    with pytest.raises(LedgerError, match="from a copy"):
        list(ledger.events())
    ledger.close()


def tick_of_many_classes(classes: int = 5_000) -> e.Ticked:
    """A judged measurement of a model with this many labels."""
    rng = np.random.default_rng(classes)
    stable, canary = (rng.multinomial(total, rng.dirichlet(np.ones(classes))).tolist() for total in (9_000, 1_000))
    windows = tuple(
        Window(1.7e9, 5.0123, f"class:{label}", Pair(y, 9_000), Pair(x, 1_000))
        for label, (y, x) in enumerate(zip(stable, canary, strict=True))
    )
    judge = Judge(RolloutSpec().judge_config())
    judge.observe(windows)
    evidence = judge.judgement(next_weight=None)
    return TICK.model_copy(update={"at_s": 1.7e9, "window_s": 5.0123, "windows": windows, "evidence": evidence})


def test_a_large_event_takes_a_tenth_of_its_text_size(tmp_path: Path) -> None:
    """Its evidence is read back bit for bit. Small events stay text that any SQLite tool shows."""
    tick = tick_of_many_classes()
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append(*EVENTS, TICK, tick)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        rows = db.execute("SELECT data, packed FROM events").fetchall()
    assert [packed is None for _, packed in rows] == [True, True, True, True, False]
    assert all(json.loads(data) for data, _ in rows[:4])
    assert rows[4][0] == ""
    assert len(rows[4][1]) < len(tick.stored()) / 8
    assert ledger.last_tick(1) == tick
    assert tuple(ledger.events())[-1] == tick
    ledger.close()


@pytest.mark.parametrize("packed", [b"no zlib", zlib.compress(b"no event"), zlib.compress(b"cut off" * 99)[:-9]])
def test_a_packed_event_that_cannot_be_unpacked_is_reported(tmp_path: Path, packed: bytes) -> None:
    """It is reported like text that cannot be parsed."""
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append(*EVENTS)
    insert = "INSERT INTO events (at_s, release, kind, data, packed, schema) VALUES (5.0, 1, 'ticked', '', ?, ?)"
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db, db:
        db.execute(insert, (packed, NUMBER))
    with pytest.raises(LedgerDamaged, match="event 4"):
        list(ledger.events())
    ledger.close()


def test_an_event_that_cannot_be_parsed_is_reported(tmp_path: Path) -> None:
    """The error gives its number in the file; the event is not skipped silently."""
    restored("ledger-0", tmp_path / "ledger.db")
    db = sqlite3.connect(tmp_path / "ledger.db")
    db.execute("INSERT INTO events VALUES (9999, 1.0, 1, 'ended', '{\"kind\": \"ended\"')")
    db.commit()
    db.close()
    ledger = Ledger(tmp_path / "ledger.db", read_only=True)
    with pytest.raises(LedgerError, match="event 9999"):
        list(ledger.events())
    ledger.close()


def test_an_empty_file_is_not_a_ledger_yet(tmp_path: Path) -> None:
    """An interrupted first start leaves one. Readers say what to do, and the next start makes it a ledger."""
    path = tmp_path / "ledger.db"
    path.touch()
    with pytest.raises(NoLedger, match="kanaria up"):
        Ledger(path, read_only=True)
    assert stable_version(path) is None
    assert path.read_bytes() == b""
    Ledger(path).close()
    reader = Ledger(path, read_only=True)
    assert list(reader.events()) == []
    reader.close()


def written(path: Path) -> Ledger:
    """An open ledger with events."""
    ledger = Ledger(path)
    ledger.append(*EVENTS)
    return ledger


@pytest.mark.parametrize("left", ["", "-wal"])
def test_a_ledger_that_is_gone_is_not_replaced_by_a_new_one(tmp_path: Path, left: str) -> None:
    """Files beside it show that there was one. Without history, a rolled-back canary might be released again."""
    path = tmp_path / "ledger.db"
    ledger = written(path)
    log = Path(f"{path}-wal").read_bytes()
    ledger.close()
    path.unlink()
    if left:
        Path(f"{path}-wal").write_bytes(log)
        path.with_suffix(".id").unlink()
    for read_only in (True, False):
        with pytest.raises(LedgerGone, match="the ledger is gone") as refused:
            Ledger(path, read_only=read_only)
        assert "kanaria ledger restore" in refused.value.do
        assert "kanaria ledger new" in refused.value.do
    with pytest.raises(LedgerGone):
        stable_version(path)
    assert not path.exists()
    assert not left or Path(f"{path}-wal").read_bytes() == log


def test_a_new_ledger_in_place_of_the_known_one_is_refused(tmp_path: Path) -> None:
    """An older Kanaria version, which knows no identity, may have made it."""
    path = tmp_path / "ledger.db"
    written(path).close()
    path.unlink()
    known = path.with_suffix(".id").rename(tmp_path / "aside")
    Ledger(path).close()
    known.rename(path.with_suffix(".id"))
    with pytest.raises(LedgerGone, match="no events"):
        Ledger(path)


def test_the_ledger_of_another_deployment_is_refused(tmp_path: Path) -> None:
    """Its versions are not those of this folder; a copy of the folder's own ledger is accepted."""
    path, other = tmp_path / "ledger.db", tmp_path / "other.db"
    written(path).close()
    ledger = Ledger(other)
    ledger.append(*EVENTS[1:])
    ledger.close()
    own = path.read_bytes()
    path.write_bytes(other.read_bytes())
    with pytest.raises(LedgerError, match="of another deployment"):
        Ledger(path)
    path.write_bytes(own)
    Ledger(path).close()


def test_the_identity_is_written_when_it_becomes_possible(tmp_path: Path) -> None:
    """Neither an old ledger nor a full disk prevents writes; the next event writes the identity into the folder."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    mark = path.with_suffix(".id")
    mark.mkdir()  # no file can be written under this name
    ledger.append(EVENTS[0])
    mark.rmdir()
    ledger.append(EVENTS[1])
    assert mark.read_text()
    mark.unlink()
    ledger.close()
    Ledger(path).close()
    assert mark.read_text()


def test_a_writer_that_was_overtaken_by_another_writes_nothing_more(tmp_path: Path) -> None:
    """A process that was stopped while another took its place must not act on its outdated state."""
    first = written(tmp_path / "ledger.db")
    second = Ledger(tmp_path / "ledger.db")
    first.append(TICK)
    with pytest.raises(LedgerTaken, match="its last event is 4, not 3"):
        second.append(TICK)
    third = Ledger(tmp_path / "ledger.db")
    third.append(TICK)
    with pytest.raises(LedgerTaken):
        first.append(TICK)
    assert len(list(third.events())) == 5
    for ledger in (first, second, third):
        ledger.close()
