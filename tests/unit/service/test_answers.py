"""Feedback and other versions' answers are matched to the right answer and counted once, by its version."""

import hashlib
import random
import sqlite3
import threading
import time
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from contract.answer_types import Number
from contract.answers_table import ANSWERS_FILE, ANSWERS_SCHEMA
from contract.metrics import LABEL_AGES_S
from service.logs import comparison
from service.logs.answers import AnswersUnavailable, Feedback
from service.logs.room import bytes_in_use
from tests.support.answer_logs import BODY, Tally, learn, open_log
from tests.support.waiting import eventually


def test_feedback_counts_each_request_as_correct_or_wrong(tmp_path: Path) -> None:
    """Two of three answers were right."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        for request_id, truth in (("r", "a"), ("q", "a"), ("p", "x")):
            log.record(request_id, ["a"], body=BODY)
            assert learn(log, request_id, truth) is Feedback.ACCEPTED
    assert tally.counts == {"correct": 2, "wrong": 1}


def test_each_request_counts_by_one_row_drawn_at_random(tmp_path: Path) -> None:
    """Of 300 requests with one wrong row in four, a quarter are wrong: 200 equal rows are one event, not 200."""
    random.seed(7)
    tallies = Tally(), Tally()
    with open_log(tmp_path, "m:1", tallies[0]) as one, open_log(tmp_path, "m:2", tallies[1]) as other:
        for number in range(300):
            one.record(f"r{number}", ["a", "b", "c", "d"], body=BODY)
            other.record(f"r{number}", ["a", "b", "x", "d"], body=BODY)
        for number in range(300):
            assert learn(one, f"r{number}", "a", "b", "c", "d") is Feedback.ACCEPTED
    for version, tally in zip(("m:1", "m:2"), tallies, strict=True):
        count_again(tmp_path, version, tally)
    (stable, canary) = (tally.counts for tally in tallies)
    assert (stable["correct"], stable["wrong"], canary.total()) == (300, 0, 600)
    assert [stable.total(), stable["same"] + stable["different"]] == [600, 300]
    for bad in (canary["wrong"], canary["different"], stable["different"]):
        assert binomtest(bad, 300, 1 / 4).pvalue > 0.001


def test_numbers_are_right_and_the_same_within_a_tolerance(tmp_path: Path) -> None:
    """One of two answers is within the tolerance of the truth, and one within that of the other version's answer."""
    kind, tallies = Number(tolerance=10, edges=(100,)), (Tally(), Tally())
    with (
        open_log(tmp_path, "m:1", tallies[0], is_same=kind.is_same) as one,
        open_log(tmp_path, "m:2", tallies[1], is_same=kind.is_same) as other,
    ):
        for request_id, answer, truth, others in (("r", 100.0, 109.5, 91.0), ("q", 200.0, 250.0, 189.0)):
            one.record(request_id, [answer], body=BODY)
            assert learn(one, request_id, truth) is Feedback.ACCEPTED
            other.record(request_id, [others], body=BODY)
    assert [tally.counts for tally in tallies] == [
        {"correct": 1, "wrong": 1, "same": 1, "different": 1},
        {"correct": 0, "wrong": 2, "same": 1, "different": 1},
    ]


def test_feedback_given_twice_counts_once(tmp_path: Path) -> None:
    """The second feedback is reported as a duplicate, even if its labels differ."""
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
    """No answer with that id exists."""
    with open_log(tmp_path, "m:1", Tally()) as log:
        assert learn(log, "never", "a") is Feedback.UNKNOWN


def test_feedback_needs_one_label_per_row(tmp_path: Path) -> None:
    """If the numbers differ nothing is guessed, and correct feedback is still accepted later."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        log.record("r", ["a", "b"], body=BODY)
        outcomes = [learn(log, "r", "a"), learn(log, "r", "a", "b")]
    assert (outcomes, tally.counts["correct"]) == ([Feedback.WRONG_LENGTH, Feedback.ACCEPTED], 1)


def test_a_file_that_another_process_is_creating_is_waited_for(tmp_path: Path) -> None:
    """SQLite itself does not wait for the journal mode of a file in use, and versions that start together change it."""
    tally = Tally()
    with closing(sqlite3.connect(tmp_path / ANSWERS_FILE, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        with open_log(tmp_path, "m:1", tally) as log:
            log.record("r", ["a"], body=BODY)
            freeing = threading.Timer(0.2, other.execute, ["COMMIT"])
            freeing.start()
            assert learn(log, "r", "a") is Feedback.ACCEPTED
            freeing.join()
    assert tally.counts == {"correct": 1, "wrong": 0}


def test_the_version_that_answered_counts_the_feedback(tmp_path: Path) -> None:
    """Feedback for m:1 reaches the process of m:2, and only m:1 counts it."""
    first, second = Tally(), Tally()
    with open_log(tmp_path, "m:1", first) as answered, open_log(tmp_path, "m:2", second) as received:
        answered.record("r", ["a"], body=BODY)
        assert learn(received, "r", "a") is Feedback.ACCEPTED
    count_again(tmp_path, "m:1", first)
    assert (first.counts["correct"], second.counts["correct"]) == (1, 0)


def test_a_request_cannot_be_found_by_guessing_its_values(tmp_path: Path) -> None:
    """Without a key, a checksum of the body reveals the value of a column that is never logged."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally, key=b"secret") as log:
        log.record("r", ["a"], body=BODY)
    with closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as database:
        (found,) = database.execute("SELECT body_crc FROM answers").fetchone()
    guessed = [hashlib.blake2b(BODY, digest_size=4, key=key).digest() for key in (b"secret", b"", b"other")]
    own, *others = (int.from_bytes(digest, "big") for digest in guessed)
    assert (found == own, found in (*others, zlib.crc32(BODY))) == (True, False)


def test_a_version_with_unkeyed_checksums_is_still_compared(tmp_path: Path) -> None:
    """A Bento contains its own copy of this code, so stable has no key in the first release after an upgrade."""
    tally = Tally()
    with open_log(tmp_path, "m:2", tally, key=b"secret") as canary:
        with open_log(tmp_path, "m:1", Tally()) as stable:
            stable.record("r", ["a"], body=BODY)
        with closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as database, database:
            database.execute("UPDATE answers SET body_crc = ?, is_keyed = NULL", (zlib.crc32(BODY),))
        canary.record("r", ["b"], body=BODY)
    assert compared(tally) == (0, 1)


def test_versions_with_different_keys_are_not_compared(tmp_path: Path) -> None:
    """It is unknown whether they received the same request."""
    tallies = Tally(), Tally()
    first, second = (open_log(tmp_path, f"m:{n}", tally, key=b"%d" % n) for n, tally in enumerate(tallies))
    with first as one, second as two:
        one.record("r", ["a"], body=BODY)
        two.record("r", ["b"], body=BODY)
    assert [tally.counts["different"] + tally.counts["same"] for tally in tallies] == [0, 0]


def test_a_label_of_a_mirrored_request_counts_for_both_versions(tmp_path: Path) -> None:
    """Stable and canary answered under one request id: the label counts for both, even if one answered late."""
    stable, canary = Tally(), Tally()
    with open_log(tmp_path, "m:1", stable) as log:
        log.record("r", ["a"], body=BODY)
        learn(log, "r", "a")
    with open_log(tmp_path, "m:2", canary) as log:
        log.record("r", ["b"], body=BODY)
    judged = [(tally.counts["correct"], tally.counts["wrong"]) for tally in (stable, canary)]
    assert judged == [(1, 0), (0, 1)]


def test_two_workers_of_one_version_count_a_feedback_once(tmp_path: Path) -> None:
    """Both look for feedback to count, and their sum is exact."""
    one, two = Tally(), Tally()
    with open_log(tmp_path, "m:1", one) as first, open_log(tmp_path, "m:1", two) as second:
        for number in range(20):
            (first if number % 2 else second).record(f"r{number}", ["a"], body=BODY)
        for number in range(20):
            learn(first if number % 3 else second, f"r{number}", "a")
    assert one.counts["correct"] + two.counts["correct"] == 20


def grow_older(folder: Path, by_s: float) -> None:
    """Make every answer in the file `by_s` seconds older."""
    with closing(sqlite3.connect(folder / ANSWERS_FILE)) as database:
        database.execute("UPDATE answers SET answered_at_s = answered_at_s - ?", (by_s,))
        database.commit()


def test_a_label_is_counted_again_at_each_age_of_its_answer(tmp_path: Path) -> None:
    """One label came at once and one after a minute: both are counted at ten minutes, and neither earlier."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally, label_ages_s=(600.0, 3600.0)) as log:
        log.record("quick", ["a"], body=BODY)
        assert learn(log, "quick", "x") is Feedback.ACCEPTED
        log.record("slow", ["a"], body=BODY)
    grow_older(tmp_path, 60)
    with open_log(tmp_path, "m:1", tally, label_ages_s=(600.0, 3600.0)) as log:
        assert learn(log, "slow", "a") is Feedback.ACCEPTED
    came = {(600.0, "came"): 2, (3600.0, "came"): 2}
    assert (tally.counts, tally.by_age) == ({"correct": 1, "wrong": 1}, came)
    grow_older(tmp_path, 541)
    for _ in range(2):
        count_again(tmp_path, "m:1", tally, label_ages_s=(600.0, 3600.0))
    assert tally.by_age == {**came, (600.0, "correct"): 1, (600.0, "wrong"): 1}
    grow_older(tmp_path, 3000)
    count_again(tmp_path, "m:1", tally, label_ages_s=(600.0, 3600.0))
    assert tally.by_age[3600.0, "correct"] == tally.by_age[3600.0, "wrong"] == 1
    assert tally.counts == {"correct": 1, "wrong": 1}


def test_a_label_is_late_for_ages_that_its_answer_has_passed(tmp_path: Path) -> None:
    """It comes after eleven minutes: too late for ten minutes, in time for an hour."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally, label_ages_s=(600.0, 3600.0)) as log:
        log.record("r", ["a"], body=BODY)
    grow_older(tmp_path, 660)
    with open_log(tmp_path, "m:1", tally, label_ages_s=(600.0, 3600.0)) as log:
        learn(log, "r", "a")
    grow_older(tmp_path, 3600)
    count_again(tmp_path, "m:1", tally, label_ages_s=(600.0, 3600.0))
    assert tally.by_age == {(600.0, "late"): 1, (3600.0, "came"): 1, (3600.0, "correct"): 1}
    assert tally.counts == {"correct": 1, "wrong": 0}


def test_ages_reached_while_no_process_ran_are_all_counted(tmp_path: Path) -> None:
    """The label had come in time for all of them."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        log.record("r", ["a"], body=BODY)
        learn(log, "r", "x")
    grow_older(tmp_path, 2 * 86_400)
    count_again(tmp_path, "m:1", tally)
    assert tally.by_age == {(age_s, outcome): 1 for age_s in LABEL_AGES_S for outcome in ("came", "wrong")}


def test_workers_count_each_label_once_at_each_age(tmp_path: Path) -> None:
    """Two workers count at the same time, and neither counts answers of the other version."""
    tallies = Tally(), Tally(), Tally()
    with (
        open_log(tmp_path, "m:1", tallies[0]) as one,
        open_log(tmp_path, "m:1", tallies[1]) as two,
        open_log(tmp_path, "m:2", tallies[2]) as other,
    ):
        for number in range(60):
            (one, two, other)[number % 3].record(f"r{number}", ["a"], body=BODY)
        for number in range(60):
            learn(other, f"r{number}", "a")
    grow_older(tmp_path, 30)
    with open_log(tmp_path, "m:1", tallies[0]), open_log(tmp_path, "m:1", tallies[1]):
        pass
    of_one_version = tallies[0].by_age + tallies[1].by_age
    assert (of_one_version[10.0, "correct"], of_one_version[10.0, "came"]) == (40, 40)
    assert tallies[2].by_age[10.0, "correct"] == 0


def test_answers_survive_a_restart(tmp_path: Path) -> None:
    """Feedback that arrives after the process was replaced still finds its answer."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        log.record("r", ["a"], body=BODY)
    with open_log(tmp_path, "m:1", tally) as log:
        assert learn(log, "r", "a") is Feedback.ACCEPTED
    assert tally.counts["correct"] == 1


def test_only_the_newest_answers_are_kept(tmp_path: Path) -> None:
    """The file is bounded: the newest 10 of 30 answers remain."""
    with open_log(tmp_path, "m:1", Tally()) as log:
        for number in range(30):
            log.record(f"r{number}", ["a"], body=BODY)
    with open_log(tmp_path, "m:1", Tally(), max_answers=10):
        pass  # removes old answers at the start
    with closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as database:
        kept = {request_id for (request_id,) in database.execute("SELECT request_id FROM answers")}
    assert kept == {f"r{number}" for number in range(20, 30)}


def test_the_table_of_answers_is_bounded_in_bytes(tmp_path: Path) -> None:
    """Whatever the size of an answer, the oldest are removed first, and their space is used again."""
    limit, labels = 300_000, [f"a long name of a class {number}" for number in range(100)]
    for first in (0, 300):
        with open_log(tmp_path, "m:1", Tally(), max_bytes=limit) as log:
            for number in range(first, first + 300):  # about 1 MB
                log.record(f"r{number}", labels, body=BODY)
    with open_log(tmp_path, "m:1", Tally(), max_bytes=limit) as log:
        assert learn(log, "r599", *labels) is Feedback.ACCEPTED
        assert learn(log, "r0", *labels) is Feedback.UNKNOWN
    with closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as database:
        assert bytes_in_use(database) <= limit
        kept = [int(request_id[1:]) for (request_id,) in database.execute("SELECT request_id FROM answers ORDER BY id")]
    assert kept == list(range(kept[0], 600))


def test_a_label_that_no_version_can_give_is_refused(tmp_path: Path) -> None:
    """It is neither kept nor counted, and the right label is still accepted later."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally, labels=["a", "b"]) as log:
        log.record("r", ["a", "b"], body=BODY)
        assert learn(log, "r", "a", "x" * 1_000_000) is Feedback.UNKNOWN_LABEL
        assert learn(log, "r", "a", "a") is Feedback.ACCEPTED
    assert tally.counts.total() == 1
    assert tally.counts["dropped"] == 0


def test_a_new_label_of_the_canary_is_accepted_for_both_versions(tmp_path: Path) -> None:
    """It does not matter which version answered or which receives the feedback: stable was wrong there."""
    stable, canary = Tally(), Tally()
    with (
        open_log(tmp_path, "m:1", stable, labels=["a", "b"]) as one,
        open_log(tmp_path, "m:2", canary, labels=["a", "b", "new"]) as other,
    ):
        one.record("r", ["a"], body=BODY)
        other.record("q", ["new"], body=BODY)
        eventually(lambda: learn(other, "r", "new") is Feedback.ACCEPTED)
        eventually(lambda: learn(one, "q", "new") is Feedback.ACCEPTED)
    assert (stable.counts["wrong"], canary.counts["correct"]) == (1, 1)


def test_labels_for_answers_of_an_older_bento_are_not_checked(tmp_path: Path) -> None:
    """An older Bento does not say which labels it knows."""
    with open_log(tmp_path, "m:old", Tally()) as old, open_log(tmp_path, "m:2", Tally(), labels=["a"]) as new:
        old.record("r", ["z"], body=BODY)
        assert learn(new, "r", "y") is Feedback.ACCEPTED


def test_answers_that_cannot_be_written_are_dropped_and_counted(tmp_path: Path) -> None:
    """The folder's path is a file: serving goes on, the loss is counted, and feedback is refused."""
    (tmp_path / "folder").write_text("in the way")
    tally = Tally()
    with open_log(tmp_path / "folder", "m:1", tally) as log:
        log.record("r", ["a"], body=BODY)
        with pytest.raises(AnswersUnavailable):
            learn(log, "r", "a")
    assert tally.counts.pop("failed") > 0
    assert tally.counts == {"dropped": 1}


def compared(tally: Tally) -> tuple[int, int]:
    """Requests that both versions answered alike, and those that they answered differently."""
    return tally.counts["same"], tally.counts["different"]


def test_a_link_in_place_of_the_table_is_not_followed(tmp_path: Path) -> None:
    """Another database is not written to, and the loss is counted."""
    other, tally = tmp_path / "ledger.db", Tally()
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE ledger (x)")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ANSWERS_FILE).symlink_to(other)
    with open_log(tmp_path / "folder", "m:1", tally) as log:
        log.record("r", ["a"], body=BODY)
    with closing(sqlite3.connect(other)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("ledger",)]
    assert tally.counts["dropped"] == 1


def test_a_link_made_after_the_check_is_not_followed_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself follows links."""
    other, tally = tmp_path / "ledger.db", Tally()
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE ledger (x)")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ANSWERS_FILE).symlink_to(other)
    monkeypatch.setattr(Path, "is_symlink", lambda _: False)
    with open_log(tmp_path / "folder", "m:1", tally) as log:
        log.record("r", ["a"], body=BODY)
    with closing(sqlite3.connect(other)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("ledger",)]
    assert tally.counts["dropped"] == 1


def test_the_folder_of_the_table_may_be_a_link(tmp_path: Path) -> None:
    """Its owner may keep the folder on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "disk")
    tally = Tally()
    with open_log(tmp_path / "folder", "m:1", tally) as log:
        log.record("r", ["a"], body=BODY)
        assert learn(log, "r", "a") is Feedback.ACCEPTED
    assert tally.counts["correct"] == 1


def count_again(folder: Path, version: str, tally: Tally, **options: Any) -> None:
    """Open a log and close it: it counts once more before it closes."""
    with open_log(folder, version, tally, **options):
        pass


def test_both_versions_count_the_requests_that_they_answered_differently(tmp_path: Path) -> None:
    """One of three mirrored requests differs; both versions count it, whichever answered first."""
    first, second = Tally(), Tally()
    with open_log(tmp_path, "m:1", first) as one, open_log(tmp_path, "m:2", second) as other:
        for request_id, answer, others in (("r", "a", "a"), ("q", "b", "x"), ("p", "c", "c")):
            one.record(request_id, [answer], body=BODY)
            other.record(request_id, [others], body=BODY)
        one.record("only one answered", ["a"], body=BODY)
    for version, tally in (("m:1", first), ("m:2", second)):
        count_again(tmp_path, version, tally)
    assert [compared(first), compared(second)] == [(2, 1), (2, 1)]


def test_answers_to_different_bodies_are_not_compared(tmp_path: Path) -> None:
    """A caller that uses one id for several requests causes no false difference."""
    tally = Tally()
    with open_log(tmp_path, "m:1", Tally()) as one, open_log(tmp_path, "m:2", tally) as other:
        one.record("r", ["a"], body=b"one question")
        other.record("r", ["b"], body=b"another")
    count_again(tmp_path, "m:2", tally)
    assert compared(tally) == (0, 0)


def test_one_version_is_not_compared_with_itself(tmp_path: Path) -> None:
    """Two requests with one id, answered by two workers of one version, are not a comparison of versions."""
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as one, open_log(tmp_path, "m:1", tally) as other:
        one.record("r", ["a"], body=BODY)
        other.record("r", ["b"], body=BODY)
    count_again(tmp_path, "m:1", tally)
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
        count_again(tmp_path, "m:2", tally)
        count_again(tmp_path, "m:1", stable)
    assert [compared(tally), compared(stable)] == [(30, 10), (30, 10)]


def test_answers_from_before_a_version_started_are_not_compared(tmp_path: Path) -> None:
    """A new version starts without a history."""
    tally = Tally()
    for version in ("m:1", "m:2"):
        with open_log(tmp_path, version, Tally()) as log:
            log.record("r", [version], body=BODY)
    count_again(tmp_path, "m:3", tally)
    assert compared(tally) == (0, 0)


def test_the_number_of_answers_compared_at_once_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that was stopped for a long time compares only the newest answers."""
    monkeypatch.setattr(comparison, "MOST_AT_ONCE", 10)
    tally = Tally()
    with open_log(tmp_path, "m:2", Tally()) as log:
        for number in range(30):
            log.record(f"r{number}", ["a"], body=BODY)
    with open_log(tmp_path, "m:1", Tally()) as log:
        for number in range(30):
            log.record(f"r{number}", ["a"], body=BODY)
    count_again(tmp_path, "m:2", tally)
    assert compared(tally) == (10, 0)


def test_a_file_made_by_an_older_bento_is_upgraded(tmp_path: Path) -> None:
    """Each Bento has its own copy of the code and all share one file: an older Bento's answers stay."""
    lines = ANSWERS_SCHEMA.splitlines()
    older = "\n".join(line for line in lines if not line.strip().startswith(("body_crc ", "is_keyed ", "aging ")))
    assert len(older.splitlines()) == len(lines) - 3
    insert = "INSERT INTO answers (request_id, version, answered_at_s, labels) VALUES ('r', 'm:1', ?, '[\"a\"]')"
    with closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as database:
        database.executescript(older)
        database.execute(insert, (time.time(),))
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
def test_correct_and_wrong_add_up_to_the_requests(
    tmp_path_factory: pytest.TempPathFactory, requests: list[tuple[str, str]]
) -> None:
    """This holds for any answers and labels; a request with many rows counts once."""
    tally, answered, true = Tally(), [label for label, _ in requests], [label for _, label in requests]
    with open_log(tmp_path_factory.mktemp("answers"), "m:1", tally) as log:
        for number, label in enumerate(answered):
            log.record(f"r{number}", [label], body=BODY)
        log.record("all", answered, body=BODY)
        for number, truth in enumerate(true):
            learn(log, f"r{number}", truth)
        learn(log, "all", *true)
    correct = sum(label == truth for label, truth in requests)
    drawn = tally.counts["correct"] - correct
    assert tally.counts["wrong"] == len(requests) - correct + 1 - drawn
    assert drawn in {int(label == truth) for label, truth in requests}
