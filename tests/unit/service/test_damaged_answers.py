"""No answer, label or file ends the thread that counts: an entry that cannot be compared is dropped and counted."""

import secrets
import sqlite3
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

import service.logs.answers as module
from contract.answers_table import ANSWERS_FILE
from service.logs.answers import AnswerLog, AnswersUnavailable, Feedback
from tests.support import waiting
from tests.support.answer_logs import BODY, Tally, learn, open_log

eventually = partial(waiting.eventually, within_s=60.0)  # for busy machines


def assert_counts_on(log: AnswerLog, tally: Tally) -> None:
    """Assert that a further request is counted as usual."""
    before, request_id = tally.counts["correct"], secrets.token_hex()
    log.record(request_id, ["a"], body=BODY)
    assert learn(log, request_id, "a") is Feedback.ACCEPTED
    eventually(lambda: tally.counts["correct"] == before + 1)
    assert log.is_alive


def test_a_label_is_matched_to_the_answer_with_as_many_rows(tmp_path: Path) -> None:
    """m:1 answers one row and gets its label; m:2 then answers two rows under the same id, which have no label."""
    tallies = {"m:1": Tally(), "m:2": Tally()}
    with open_log(tmp_path, "m:1", tallies["m:1"]) as log, open_log(tmp_path, "m:2", tallies["m:2"]) as other:
        log.record("r", ["a"], body=BODY)
        assert learn(log, "r", "a") is Feedback.ACCEPTED
        other.record("r", ["a", "b"], body=b"another question")
        assert_counts_on(log, tallies["m:1"])
        assert_counts_on(other, tallies["m:2"])
    with closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as database:
        database.execute("UPDATE answers SET answered_at_s = answered_at_s - 2 * 86400")
        database.commit()
    for version, tally in tallies.items():
        with open_log(tmp_path, version, tally):
            pass
    day = 86_400.0, "correct"
    assert {version: tally.by_age[day] for version, tally in tallies.items()} == {"m:1": 2, "m:2": 1}
    assert [tally.counts for tally in tallies.values()] == [{"correct": 2, "wrong": 0}, {"correct": 1, "wrong": 0}]


@pytest.mark.parametrize(
    ("labels", "truth"),
    [
        ('["a", "b"]', '["a"]'),  # as an older Bento matched them
        ("[]", "[]"),
        ("7", "[7]"),
        ("not JSON", '["a"]'),
        ('["a"]', "{"),
        ('[{"a": 1}]', '["a"]'),
    ],
)
@pytest.mark.parametrize("counted", [0, 1], ids=["new", "at an age"])
def test_a_label_in_the_file_that_fits_no_answer_is_dropped(
    tmp_path: Path, labels: str, truth: str, counted: int
) -> None:
    """It counts once as dropped, is counted at no age, and is not counted again."""

    def is_same(one: object, other: object) -> bool:
        assert isinstance(one, str)
        return one == other

    with open_log(tmp_path, "m:1", Tally()):
        pass
    with closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as database:
        row = ("r", "m:1", time.time() - 100, labels, truth, counted, 0 if counted else None)
        database.execute(
            "INSERT INTO answers (request_id, version, answered_at_s, labels, truth, counted, aging)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        database.commit()
    for dropped in (1, 0):
        tally = Tally()
        with open_log(tmp_path, "m:1", tally, is_same=is_same, label_ages_s=(10.0,)) as log:
            assert_counts_on(log, tally)
        assert tally.counts["dropped"] == dropped
        assert tally.counts["failed"] == 0
        assert tally.by_age == {(10.0, "came"): 1}


@pytest.mark.parametrize("others", ["not JSON", "[]", "7", '[["a"]]'])
def test_an_answer_of_another_version_that_cannot_be_compared_is_dropped(tmp_path: Path, others: str) -> None:
    """The next pair is compared as usual."""

    def is_same(one: object, other: object) -> bool:
        return float(str(one)) == float(str(other))

    tally = Tally()
    with open_log(tmp_path, "m:2", Tally()) as other, open_log(tmp_path, "m:1", tally, is_same=is_same) as log:
        eventually(lambda: log._connection and other._connection)
        other.record("r", ["1"], body=BODY)
        other.record("q", ["1"], body=BODY)
        with closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as database:

            def is_damaged() -> bool:
                changed = database.execute("UPDATE answers SET labels = ? WHERE request_id = 'r'", (others,))
                database.commit()
                return changed.rowcount == 1

            eventually(is_damaged)
        for request_id in ("r", "q"):
            log.record(request_id, ["1"], body=BODY)
        eventually(lambda: tally.counts["same"] == 1)
        assert log.is_alive
    assert (tally.counts["dropped"] >= (others != "[]"), tally.counts["failed"]) == (True, 0)


def test_a_label_that_cannot_be_written_fails_only_its_own_request(tmp_path: Path) -> None:
    """Half a surrogate pair is not valid text."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        log.record("r", ["a"], body=BODY)
        with pytest.raises(TypeError):
            learn(log, "r", "\ud800")
        assert learn(log, "r", "a") is Feedback.ACCEPTED
        assert_counts_on(log, tally)


def test_a_failure_in_each_turn_does_not_stop_the_other_work(tmp_path: Path) -> None:
    """A counter raises: answers and labels are still written, and a lost count does not block the next one."""
    tally = Tally()

    def count(*_: object, **__: int) -> None:
        raise RuntimeError("no counter")

    log = AnswerLog(
        tmp_path,
        "m:1",
        count_feedback=count,
        count_labels=tally.labels,
        count_disagreement=count,
        count_pairs=count,
        count_dropped=tally.dropped,
        count_failure=tally.failed,
    )
    with log:
        for number in range(3):
            log.record(f"r{number}", ["a"], body=BODY)
            assert learn(log, f"r{number}", "a") is Feedback.ACCEPTED
            eventually(lambda number=number: tally.counts["failed"] > number)
        assert log.is_alive
    assert tally.counts["dropped"] == 0


def test_a_missing_table_is_counted_and_feedback_is_refused(tmp_path: Path) -> None:
    """Each turn fails, the thread goes on, and it works again when the table is back."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        assert_counts_on(log, tally)
        with closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as database:
            database.execute("ALTER TABLE answers RENAME TO elsewhere")
            log.record("r", ["a"], body=BODY)
            with pytest.raises(AnswersUnavailable):
                learn(log, "r", "a")
            eventually(lambda: tally.counts["failed"] > 0)
            database.execute("ALTER TABLE elsewhere RENAME TO answers")
        log.record("q", ["a"], body=BODY)
        assert learn(log, "q", "a") is Feedback.ACCEPTED
    assert tally.counts["dropped"] == 1


def test_feedback_does_not_wait_forever_for_a_hanging_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, and the thread's later answer is ignored."""
    monkeypatch.setattr(module, "ANSWER_WITHIN_S", 0.1)
    hanging, asked = threading.Event(), threading.Event()

    def count(*_: object, **__: int) -> None:
        asked.set()
        hanging.wait()

    log = AnswerLog(
        tmp_path,
        "m:1",
        count_feedback=count,
        count_labels=Tally().labels,
        count_disagreement=count,
        count_pairs=count,
        count_dropped=Tally().dropped,
        count_failure=Tally().failed,
    )
    with log:
        log.record("r", ["a"], body=BODY)
        monkeypatch.setattr(module, "ANSWER_WITHIN_S", 9.0)
        assert learn(log, "r", "a") is Feedback.ACCEPTED
        assert asked.wait(timeout=60)
        monkeypatch.setattr(module, "ANSWER_WITHIN_S", 0.1)
        with pytest.raises(AnswersUnavailable):
            learn(log, "r", "a")
        hanging.set()
        monkeypatch.setattr(module, "ANSWER_WITHIN_S", 9.0)
        assert learn(log, "r", "a") is Feedback.DUPLICATE
        assert log.is_alive
