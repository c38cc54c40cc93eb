"""Late labels: joined to the answer that was given, counted once, by the version that gave it."""

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.answers import FILE, AnswerLog, AnswersUnavailable, Feedback


class Tally:
    """Counts what an AnswerLog reports."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def feedback(self, *, correct: int, wrong: int) -> None:
        self.counts.update(correct=correct, wrong=wrong)

    def dropped(self, answers: int) -> None:
        self.counts.update(dropped=answers)


def open_log(folder: Path, version: str, tally: Tally, **options: int) -> AnswerLog:
    return AnswerLog(folder, version, count_feedback=tally.feedback, count_dropped=tally.dropped, **options)


def learn(log: AnswerLog, request_id: str, *labels: str) -> Feedback:
    return asyncio.run(log.learn(request_id, labels))


def test_feedback_counts_each_row_as_correct_or_wrong(tmp_path: Path) -> None:
    """Of three rows two were right."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        log.record("r", ["a", "b", "c"])
        assert learn(log, "r", "a", "b", "x") is Feedback.ACCEPTED
    assert tally.counts == {"correct": 2, "wrong": 1}


def test_feedback_given_twice_counts_once(tmp_path: Path) -> None:
    """The second one is known as a duplicate, even when it says something else."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        log.record("r", ["a"])
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
        log.record("r", ["a", "b"])
        outcomes = [learn(log, "r", "a"), learn(log, "r", "a", "b")]
    assert (outcomes, tally.counts["correct"]) == ([Feedback.WRONG_LENGTH, Feedback.ACCEPTED], 2)


def test_the_version_that_answered_counts_whoever_hears_it(tmp_path: Path) -> None:
    """Feedback for m:1 reaches the process of m:2: only m:1 counts it."""
    first, second = Tally(), Tally()
    with open_log(tmp_path, "m:1", first) as answered, open_log(tmp_path, "m:2", second) as heard:
        answered.record("r", ["a"])
        assert learn(heard, "r", "a") is Feedback.ACCEPTED
    with open_log(tmp_path, "m:1", first):
        pass  # looks once more before it closes
    assert (first.counts["correct"], second.counts["correct"]) == (1, 0)


def test_a_mirrored_request_is_judged_for_both_versions(tmp_path: Path) -> None:
    """Stable and canary answered under one request id: the truth counts for each, also when one answered late."""
    stable, canary = Tally(), Tally()
    with open_log(tmp_path, "m:1", stable) as log:
        log.record("r", ["a"])
        learn(log, "r", "a")
    with open_log(tmp_path, "m:2", canary) as log:
        log.record("r", ["b"])
    assert (stable.counts, canary.counts) == ({"correct": 1, "wrong": 0}, {"correct": 0, "wrong": 1})


def test_two_workers_of_one_version_count_a_feedback_once(tmp_path: Path) -> None:
    """Both look for feedback to count; the sum over them is exact."""
    one, two = Tally(), Tally()
    with open_log(tmp_path, "m:1", one) as first, open_log(tmp_path, "m:1", two) as second:
        for number in range(20):
            (first if number % 2 else second).record(f"r{number}", ["a"])
        for number in range(20):
            learn(first if number % 3 else second, f"r{number}", "a")
    assert one.counts["correct"] + two.counts["correct"] == 20


def test_answers_survive_a_restart(tmp_path: Path) -> None:
    """Feedback that comes after the process was replaced still finds its answer."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        log.record("r", ["a"])
    with open_log(tmp_path, "m:1", tally) as log:
        assert learn(log, "r", "a") is Feedback.ACCEPTED
    assert tally.counts["correct"] == 1


def test_only_the_newest_answers_are_kept(tmp_path: Path) -> None:
    """The file is bounded: of 30 answers the newest 10 remain."""
    with open_log(tmp_path, "m:1", Tally()) as log:
        for number in range(30):
            log.record(f"r{number}", ["a"])
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
        log.record("r", ["a"])
        with pytest.raises(AnswersUnavailable):
            learn(log, "r", "a")
    assert tally.counts == {"dropped": 1}


@settings(max_examples=20, deadline=None)  # each example opens and closes a file
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30))
def test_counts_are_exact(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    """For any answers and truths, correct and wrong add up to the rows."""
    tally, answered, true = Tally(), [label for label, _ in rows], [label for _, label in rows]
    with open_log(tmp_path_factory.mktemp("answers"), "m:1", tally) as log:
        log.record("r", answered)
        learn(log, "r", *true)
    correct = sum(label == truth for label, truth in rows)
    assert (tally.counts["correct"], tally.counts["wrong"]) == (correct, len(rows) - correct)
