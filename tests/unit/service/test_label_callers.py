"""Labels are counted by caller: a few callers separately, the same ones for every version, and the rest together."""

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from contract.answers_table import ANSWERS_FILE
from contract.metrics import MOST_CALLERS
from service.logs import room
from service.logs.answers import Feedback
from tests.support.answer_logs import BODY, Tally, learn, open_log


def label(folder: Path, version: str, tally: Tally, callers: list[str], **told: str) -> None:
    """Send one right label for each caller."""
    with open_log(folder, version, tally) as log:
        for number, caller in enumerate(callers):
            log.record(f"{version}-{number}", ["a"], body=BODY, caller=caller)
            assert learn(log, f"{version}-{number}", "a", caller=caller, **told) is Feedback.ACCEPTED
    with open_log(folder, version, tally):  # counts what is left
        pass


def test_labels_are_counted_by_caller_at_once_and_at_each_age(tmp_path: Path) -> None:
    tally = Tally()
    label(tmp_path, "m:1", tally, ["shop", "shop", "bank"])
    assert tally.counts["correct"] == 3
    assert tally.by_caller == {"correct shop": 2, "correct bank": 1}
    with closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as table, table:
        table.execute("UPDATE answers SET answered_at_s = answered_at_s - 30")
    with open_log(tmp_path, "m:1", tally):  # counts those that have reached an age
        pass
    assert (tally.by_caller["correct at 10 s shop"], tally.by_caller["correct at 10 s bank"]) == (2, 1)


def test_a_label_counts_for_its_sender_and_not_for_the_answers_owner(tmp_path: Path) -> None:
    """Otherwise excluding the owner's labels would also exclude those of other senders."""
    tally = Tally()
    label(tmp_path, "m:1", tally, ["shop", "shop"], sender="clinic")
    assert tally.by_caller == {"correct clinic": 2}


def test_the_separately_counted_callers_are_the_same_for_every_version(tmp_path: Path) -> None:
    first = [f"caller-{number}" for number in range(MOST_CALLERS)]
    stable, canary = Tally(), Tally()
    label(tmp_path, "m:1", stable, [*first, "late", "later"])
    label(tmp_path, "m:2", canary, ["late", *reversed(first)])
    apart = Counter({f"correct {name}": 1 for name in first})
    assert stable.by_caller == apart + Counter({"correct other": 2})
    assert canary.by_caller == apart + Counter({"correct other": 1})


def test_a_caller_without_labels_for_a_week_makes_room_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(tmp_path, "m:1", Tally(), [f"caller-{number}" for number in range(MOST_CALLERS)])
    monkeypatch.setattr(room, "MAX_AGE_S", 0.0)
    with open_log(tmp_path, "m:1", Tally()):  # removes old callers
        pass
    monkeypatch.undo()
    tally = Tally()
    label(tmp_path, "m:2", tally, ["late"])
    assert tally.by_caller == {"correct late": 1}
