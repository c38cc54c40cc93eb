"""Late labels and other versions' answers: joined to the answer that was given, counted once, by who gave it."""

import asyncio
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import comparison
from service.answers import FILE, SCHEMA, AnswerLog, AnswersUnavailable, Feedback
from service.kinds import Label, Number

BODY = b"what was asked"


class Tally:
    """Counts what an AnswerLog reports."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def feedback(self, *, correct: int, wrong: int) -> None:
        self.counts.update(correct=correct, wrong=wrong)

    def disagreement(self, *, same: int, different: int) -> None:
        self.counts.update(same=same, different=different)

    def dropped(self, answers: int) -> None:
        self.counts.update(dropped=answers)


def open_log(folder: Path, version: str, tally: Tally, **options: Any) -> AnswerLog:
    return AnswerLog(
        folder,
        version,
        count_feedback=tally.feedback,
        count_disagreement=tally.disagreement,
        count_dropped=tally.dropped,
        **options,
    )


def learn(log: AnswerLog, request_id: str, *labels: Label) -> Feedback:
    return asyncio.run(log.learn(request_id, labels))


def test_feedback_counts_each_row_as_correct_or_wrong(tmp_path: Path) -> None:
    """Of three rows two were right."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        log.record("r", ["a", "b", "c"], body=BODY)
        assert learn(log, "r", "a", "b", "x") is Feedback.ACCEPTED
    assert tally.counts == {"correct": 2, "wrong": 1}


def test_numbers_are_right_and_the_same_within_a_tolerance(tmp_path: Path) -> None:
    """Of two rows one was near enough to the truth, and one near enough to what the other version said."""
    kind, tallies = Number(tolerance=10, edges=(100,)), (Tally(), Tally())
    with (
        open_log(tmp_path, "m:1", tallies[0], is_same=kind.is_same) as one,
        open_log(tmp_path, "m:2", tallies[1], is_same=kind.is_same) as other,
    ):
        one.record("r", [100.0, 200.0], body=BODY)
        assert learn(one, "r", 109.5, 250.0) is Feedback.ACCEPTED
        other.record("r", [91.0, 189.0], body=BODY)
    assert [tally.counts for tally in tallies] == [
        {"correct": 1, "wrong": 1, "same": 1, "different": 1},
        {"correct": 0, "wrong": 2, "same": 1, "different": 1},
    ]


def test_feedback_given_twice_counts_once(tmp_path: Path) -> None:
    """The second one is known as a duplicate, even when it says something else."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        log.record("r", ["a"], body=BODY)
        outcomes = [learn(log, "r", label) for label in ("a", "b")]
    assert (outcomes, tally.counts["correct"], tally.counts["wrong"]) == (
        [Feedback.ACCEPTED, Feedback.DUPLICATE],
        1,
        0,
    )


def test_feedback_for_an_unknown_request_is_reported(tmp_path: Path) -> None:
    """No answer of that id was ever given."""
    with open_log(tmp_path, "m:1", Tally()) as log:
        assert learn(log, "never", "a") is Feedback.UNKNOWN


def test_feedback_needs_one_label_per_row(tmp_path: Path) -> None:
    """Nothing is guessed when the numbers differ, and the right feedback may still come."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        log.record("r", ["a", "b"], body=BODY)
        outcomes = [learn(log, "r", "a"), learn(log, "r", "a", "b")]
    assert (outcomes, tally.counts["correct"]) == ([Feedback.WRONG_LENGTH, Feedback.ACCEPTED], 2)


def test_a_new_file_that_another_process_is_just_making_is_waited_for(tmp_path: Path) -> None:
    """SQLite itself does not wait to change the journal of a file in use, and versions that start at once do that."""
    tally = Tally()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        with open_log(tmp_path, "m:1", tally) as log:
            log.record("r", ["a"], body=BODY)
            freeing = threading.Timer(0.2, other.execute, ["COMMIT"])
            freeing.start()
            assert learn(log, "r", "a") is Feedback.ACCEPTED
            freeing.join()
    assert tally.counts == {"correct": 1, "wrong": 0}


def test_the_version_that_answered_counts_whoever_hears_it(tmp_path: Path) -> None:
    """Feedback for m:1 reaches the process of m:2: only m:1 counts it."""
    first, second = Tally(), Tally()
    with open_log(tmp_path, "m:1", first) as answered, open_log(tmp_path, "m:2", second) as heard:
        answered.record("r", ["a"], body=BODY)
        assert learn(heard, "r", "a") is Feedback.ACCEPTED
    look_again(tmp_path, "m:1", first)
    assert (first.counts["correct"], second.counts["correct"]) == (1, 0)


def test_a_mirrored_request_is_judged_for_both_versions(tmp_path: Path) -> None:
    """Stable and canary answered under one request id: the truth counts for each, also when one answered late."""
    stable, canary = Tally(), Tally()
    with open_log(tmp_path, "m:1", stable) as log:
        log.record("r", ["a"], body=BODY)
        learn(log, "r", "a")
    with open_log(tmp_path, "m:2", canary) as log:
        log.record("r", ["b"], body=BODY)
    judged = [(tally.counts["correct"], tally.counts["wrong"]) for tally in (stable, canary)]
    assert judged == [(1, 0), (0, 1)]


def test_two_workers_of_one_version_count_a_feedback_once(tmp_path: Path) -> None:
    """Both look for feedback to count; the sum over them is exact."""
    one, two = Tally(), Tally()
    with open_log(tmp_path, "m:1", one) as first, open_log(tmp_path, "m:1", two) as second:
        for number in range(20):
            (first if number % 2 else second).record(f"r{number}", ["a"], body=BODY)
        for number in range(20):
            learn(first if number % 3 else second, f"r{number}", "a")
    assert one.counts["correct"] + two.counts["correct"] == 20


def test_answers_survive_a_restart(tmp_path: Path) -> None:
    """Feedback that comes after the process was replaced still finds its answer."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        log.record("r", ["a"], body=BODY)
    with open_log(tmp_path, "m:1", tally) as log:
        assert learn(log, "r", "a") is Feedback.ACCEPTED
    assert tally.counts["correct"] == 1


def test_only_the_newest_answers_are_kept(tmp_path: Path) -> None:
    """The file is bounded: of 30 answers the newest 10 remain."""
    with open_log(tmp_path, "m:1", Tally()) as log:
        for number in range(30):
            log.record(f"r{number}", ["a"], body=BODY)
    with open_log(tmp_path, "m:1", Tally(), max_answers=10):
        pass  # clears up when it starts
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        kept = {request_id for (request_id,) in database.execute("SELECT request_id FROM answers")}
    assert kept == {f"r{number}" for number in range(20, 30)}


def test_answers_that_cannot_be_written_are_dropped_and_counted(tmp_path: Path) -> None:
    """A folder that is a file: serving goes on, the loss is a number, and feedback says that it cannot be taken."""
    (tmp_path / "folder").write_text("in the way")
    tally = Tally()
    with open_log(tmp_path / "folder", "m:1", tally) as log:
        log.record("r", ["a"], body=BODY)
        with pytest.raises(AnswersUnavailable):
            learn(log, "r", "a")
    assert tally.counts == {"dropped": 1}


def compared(tally: Tally) -> tuple[int, int]:
    """Rows answered alike and differently."""
    return tally.counts["same"], tally.counts["different"]


def look_again(folder: Path, version: str, tally: Tally) -> None:
    """A log looks once more before it closes."""
    with open_log(folder, version, tally):
        pass


def test_both_versions_count_the_rows_that_they_answered_differently(tmp_path: Path) -> None:
    """Of three rows of a mirrored request one differs, and each version says so, whoever was first."""
    first, second = Tally(), Tally()
    with open_log(tmp_path, "m:1", first) as one, open_log(tmp_path, "m:2", second) as other:
        one.record("r", ["a", "b", "c"], body=BODY)
        other.record("r", ["a", "x", "c"], body=BODY)
        one.record("only one answered", ["a"], body=BODY)
    for version, tally in (("m:1", first), ("m:2", second)):
        look_again(tmp_path, version, tally)
    assert [compared(first), compared(second)] == [(2, 1), (2, 1)]


def test_answers_to_different_bodies_are_not_compared(tmp_path: Path) -> None:
    """A caller that gives one id to several requests makes no false difference."""
    tally = Tally()
    with open_log(tmp_path, "m:1", Tally()) as one, open_log(tmp_path, "m:2", tally) as other:
        one.record("r", ["a"], body=b"one question")
        other.record("r", ["b"], body=b"another")
    look_again(tmp_path, "m:2", tally)
    assert compared(tally) == (0, 0)


def test_one_version_is_not_compared_with_itself(tmp_path: Path) -> None:
    """A client that asks twice under one id, of two workers, is no comparison of versions."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as one, open_log(tmp_path, "m:1", tally) as other:
        one.record("r", ["a"], body=BODY)
        other.record("r", ["b"], body=BODY)
    look_again(tmp_path, "m:1", tally)
    assert compared(tally) == (0, 0)


def test_workers_and_restarts_count_each_pair_once(tmp_path: Path) -> None:
    """Two workers of the shadow, then a new one, then stable's late answers: the sum is exact."""
    tally, stable = Tally(), Tally()
    with open_log(tmp_path, "m:2", tally) as one, open_log(tmp_path, "m:2", tally) as other:
        for number in range(40):
            (one if number % 2 else other).record(f"r{number}", ["a"], body=BODY)
    with open_log(tmp_path, "m:1", stable) as log:
        for number in range(40):
            log.record(f"r{number}", ["b" if number < 10 else "a"], body=BODY)
    for _ in range(3):
        look_again(tmp_path, "m:2", tally)
        look_again(tmp_path, "m:1", stable)
    assert [compared(tally), compared(stable)] == [(30, 10), (30, 10)]


def test_what_was_answered_before_a_version_was_known_is_not_compared(tmp_path: Path) -> None:
    """A version that is new here begins with no history."""
    tally = Tally()
    for version in ("m:1", "m:2"):
        with open_log(tmp_path, version, Tally()) as log:
            log.record("r", [version], body=BODY)
    look_again(tmp_path, "m:3", tally)
    assert compared(tally) == (0, 0)


def test_one_look_takes_in_a_bounded_number_of_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back after a long time away, a version compares only the newest."""
    monkeypatch.setattr(comparison, "MOST_AT_ONCE", 10)
    tally = Tally()
    with open_log(tmp_path, "m:2", Tally()) as log:
        for number in range(30):
            log.record(f"r{number}", ["a"], body=BODY)
    with open_log(tmp_path, "m:1", Tally()) as log:
        for number in range(30):
            log.record(f"r{number}", ["a"], body=BODY)
    look_again(tmp_path, "m:2", tally)
    assert compared(tally) == (10, 0)


def test_a_file_made_by_an_older_bento_is_taken_over(tmp_path: Path) -> None:
    """Each Bento carries its own copy of the code, and all share one file: the older one's answers stay."""
    older = SCHEMA.replace("    body_crc INTEGER,          -- what was asked\n", "")
    assert older != SCHEMA
    insert = "INSERT INTO answers (request_id, version, answered_at_s, labels) VALUES ('r', 'm:1', 0, '[\"a\"]')"
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.executescript(older)
        database.execute(insert)
        database.commit()
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        assert learn(log, "r", "a") is Feedback.ACCEPTED
        log.record("q", ["a"], body=BODY)
        with open_log(tmp_path, "m:2", Tally()) as other:
            other.record("q", ["b"], body=BODY)
    assert (tally.counts["correct"], compared(tally)) == (1, (0, 1))


@settings(max_examples=20, deadline=None)  # each example opens and closes a file
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30))
def test_counts_are_exact(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    """For any answers and truths, correct and wrong add up to the rows."""
    tally, answered, true = Tally(), [label for label, _ in rows], [label for _, label in rows]
    with open_log(tmp_path_factory.mktemp("answers"), "m:1", tally) as log:
        log.record("r", answered, body=BODY)
        learn(log, "r", *true)
    correct = sum(label == truth for label, truth in rows)
    assert (tally.counts["correct"], tally.counts["wrong"]) == (correct, len(rows) - correct)
