"""Where two versions answered one request and only one of them was right, each counts it once."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from scipy.stats import binomtest

from contract.answer_types import Number
from contract.answers_table import ANSWERS_FILE
from service.logs.answers import Feedback
from tests.support.answer_logs import BODY, Tally, learn, open_log

STABLE, CANARY = "m:1", "m:2"


def pairs(tally: Tally) -> tuple[int, int]:
    """Requests that this version alone was right about, and those that the other alone was."""
    return tally.paired["better"], tally.paired["worse"]


def count_again(folder: Path, stable: Tally, canary: Tally) -> None:
    """Both versions count once more."""
    for version, tally in ((STABLE, stable), (CANARY, canary)):
        with open_log(folder, version, tally):
            pass


@pytest.fixture
def stable() -> Tally:
    return Tally()


@pytest.fixture
def canary() -> Tally:
    return Tally()


def test_only_requests_that_tell_the_versions_apart_count(tmp_path: Path, stable: Tally, canary: Tally) -> None:
    """Both right, both wrong in two ways, the canary right twice, stable right once; one has no label yet."""
    truth = "a"
    with open_log(tmp_path, STABLE, stable) as one, open_log(tmp_path, CANARY, canary) as other:
        for number, (label, others) in enumerate(("aa", "bb", "bc", "ba", "ca", "ab")):
            one.record(f"r{number}", [label], body=BODY)
            other.record(f"r{number}", [others], body=BODY)
            assert learn(one if number % 2 else other, f"r{number}", truth) is Feedback.ACCEPTED
        one.record("unlabelled", ["a"], body=BODY)
        other.record("unlabelled", ["b"], body=BODY)
    count_again(tmp_path, stable, canary)
    assert [pairs(stable), pairs(canary)] == [(1, 2), (2, 1)]


@pytest.mark.parametrize("late", [STABLE, CANARY])
def test_an_answer_that_comes_after_the_label_makes_a_pair(
    tmp_path: Path, stable: Tally, canary: Tally, late: str
) -> None:
    """The copy of a request may be answered, or its answer written, after the client has sent the truth."""
    soon = CANARY if late == STABLE else STABLE
    tallies, label = {STABLE: stable, CANARY: canary}, {STABLE: "b", CANARY: "a"}
    with open_log(tmp_path, soon, tallies[soon]) as log:
        log.record("r", [label[soon]], body=BODY)
        learn(log, "r", "a")
    assert pairs(tallies[soon]) == (0, 0)
    with open_log(tmp_path, late, tallies[late]) as log:
        log.record("r", [label[late]], body=BODY)
    count_again(tmp_path, stable, canary)
    assert [pairs(stable), pairs(canary)] == [(0, 1), (1, 0)]


def test_workers_and_restarts_count_each_pair_once(tmp_path: Path, stable: Tally, canary: Tally) -> None:
    """Two workers of each version, feedback to any of them, twice, and restarts: the sums are exact."""
    logs = [open_log(tmp_path, version, tally) for version, tally in ((STABLE, stable), (CANARY, canary)) * 2]
    with logs[0], logs[1], logs[2], logs[3]:
        for number in range(40):
            logs[number % 2 * 2].record(f"r{number}", ["a" if number < 10 else "b"], body=BODY)
            logs[1 + number % 2 * 2].record(f"r{number}", ["b" if number < 10 else "a"], body=BODY)
        for number in range(40):
            learn(logs[number % 4], f"r{number}", "a")
            learn(logs[(number + 1) % 4], f"r{number}", "a")
    for _ in range(2):
        count_again(tmp_path, stable, canary)
    assert [pairs(stable), pairs(canary)] == [(10, 30), (30, 10)]


@pytest.mark.parametrize("copied", [STABLE, CANARY])
def test_the_label_of_a_copy_counts_in_its_pair_and_nowhere_else(
    tmp_path: Path, stable: Tally, canary: Tally, copied: str
) -> None:
    """In the steps either version may have answered the user; the other one's answer is no labelled prediction."""
    with open_log(tmp_path, STABLE, stable) as one, open_log(tmp_path, CANARY, canary) as other:
        for number, (label, others) in enumerate(("aa", "ba", "ab")):
            one.record(f"r{number}", [label], body=BODY, is_copy=copied == STABLE)
            other.record(f"r{number}", [others], body=BODY, is_copy=copied == CANARY)
            assert learn(other, f"r{number}", "a") is Feedback.ACCEPTED
    count_again(tmp_path, stable, canary)
    assert [pairs(stable), pairs(canary)] == [(1, 1), (1, 1)]
    tallies = {STABLE: stable, CANARY: canary}
    labels = {version: tally.counts["correct"] + tally.counts["wrong"] for version, tally in tallies.items()}
    assert labels == {STABLE: 3, CANARY: 3} | {copied: 0}
    assert not tallies[copied].by_age
    assert [tally.counts["same"] + tally.counts["different"] for tally in (stable, canary)] == [3, 3]


@pytest.mark.parametrize("copy_first", [True, False])
def test_a_request_id_that_comes_again_as_a_copy_stays_the_users(
    tmp_path: Path, stable: Tally, copy_first: bool
) -> None:
    """A caller may send a request twice: this version answers one of them, and a copy of the other."""
    with open_log(tmp_path, STABLE, stable) as log:
        for is_copy in (copy_first, not copy_first):
            log.record("r", ["a"], body=BODY, is_copy=is_copy)
        learn(log, "r", "a")
    assert (stable.counts["correct"], stable.counts["wrong"]) == (1, 0)


def test_answers_to_different_bodies_are_no_pair(tmp_path: Path, stable: Tally, canary: Tally) -> None:
    """A caller that gives one id to several requests does not make one version look better."""
    with open_log(tmp_path, STABLE, stable) as one, open_log(tmp_path, CANARY, canary) as other:
        one.record("r", ["a"], body=b"one question")
        other.record("r", ["b"], body=b"another")
        learn(one, "r", "b")
    count_again(tmp_path, stable, canary)
    assert [pairs(stable), pairs(canary)] == [(0, 0), (0, 0)]


def test_a_label_of_answers_that_only_one_version_gave_makes_no_pair(
    tmp_path: Path, stable: Tally, canary: Tally
) -> None:
    """As at every step with traffic of the canary's own."""
    with open_log(tmp_path, STABLE, stable) as one, open_log(tmp_path, CANARY, canary) as other:
        one.record("r", ["a"], body=BODY)
        other.record("q", ["b"], body=BODY)
        learn(one, "r", "a")
        learn(one, "q", "a")
    count_again(tmp_path, stable, canary)
    assert [pairs(stable), pairs(canary)] == [(0, 0), (0, 0)]


def test_numbers_are_right_within_the_tolerance(tmp_path: Path, stable: Tally, canary: Tally) -> None:
    """Of two estimates of 10 that are 0.4 and 0.6 off, a tolerance of 0.5 takes the nearer one."""
    same = Number(tolerance=0.5, edges=(5.0,)).is_same
    with (
        open_log(tmp_path, STABLE, stable, is_same=same) as one,
        open_log(tmp_path, CANARY, canary, is_same=same) as other,
    ):
        one.record("r", [10.6], body=BODY)
        other.record("r", [9.6], body=BODY)
        learn(one, "r", 10.0)
    with open_log(tmp_path, CANARY, canary, is_same=same):
        pass
    assert pairs(canary) == (1, 0)


def test_each_request_counts_by_one_row_drawn_at_random(tmp_path: Path, stable: Tally, canary: Tally) -> None:
    """Of 300 requests with four rows, the canary alone is right about one row, and both about the others."""
    random.seed(20)
    with open_log(tmp_path, STABLE, stable) as one, open_log(tmp_path, CANARY, canary) as other:
        for number in range(300):
            one.record(f"r{number}", ["b", "a", "a", "a"], body=BODY)
            other.record(f"r{number}", ["a", "a", "a", "a"], body=BODY)
            learn(one, f"r{number}", "a", "a", "a", "a")
    count_again(tmp_path, stable, canary)
    better, worse = pairs(canary)
    assert worse == 0
    assert binomtest(better, 300, 0.25).pvalue > 1e-4


def test_a_label_that_fits_no_answer_makes_no_pair_and_ends_nothing(
    tmp_path: Path, stable: Tally, canary: Tally
) -> None:
    """Answers of another Bento may be of any form; the next request counts."""

    def same(one: object, other: object) -> bool:
        return abs(float(one) - float(other)) < 0.5  # type: ignore[arg-type] # what raises is the point

    with (
        open_log(tmp_path, STABLE, stable, is_same=same) as one,
        open_log(tmp_path, CANARY, canary, is_same=same) as other,
    ):
        for request_id, label in (("odd", "seven"), ("r", 3.0)):
            one.record(request_id, [label], body=BODY)
            other.record(request_id, [7.0], body=BODY)
            learn(one, request_id, 7.0)
    for version, tally in ((STABLE, stable), (CANARY, canary)):
        with open_log(tmp_path, version, tally, is_same=same):
            pass
    assert [pairs(stable), pairs(canary)] == [(0, 1), (1, 0)]
    assert stable.counts["failed"] == canary.counts["failed"] == 0


def test_pairs_are_told_apart_by_who_labelled_them(tmp_path: Path, stable: Tally, canary: Tally) -> None:
    with open_log(tmp_path, STABLE, stable) as one, open_log(tmp_path, CANARY, canary) as other:
        for number, caller in enumerate(("shop", "shop", "bank")):
            one.record(f"r{number}", ["a"], body=BODY, caller=caller)
            other.record(f"r{number}", ["b"], body=BODY, caller=caller)
            assert learn(one, f"r{number}", "a", caller=caller) is Feedback.ACCEPTED
    count_again(tmp_path, stable, canary)
    assert [pairs(stable), pairs(canary)] == [(3, 0), (0, 3)]
    assert (stable.by_caller["better shop"], stable.by_caller["better bank"]) == (2, 1)
    assert (canary.by_caller["worse shop"], canary.by_caller["worse bank"]) == (2, 1)


def test_pairs_of_a_process_that_names_nobody_count_without_a_caller(
    tmp_path: Path, stable: Tally, canary: Tally
) -> None:
    """It is of a Bento with an older copy of the code, which knows the table of sums alone."""
    with open_log(tmp_path, STABLE, stable):
        pass
    with closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as table, table:
        table.execute("INSERT INTO paired_labels VALUES (?, 2, 1)", (STABLE,))
    count_again(tmp_path, stable, canary)
    assert (pairs(stable), stable.by_caller["better shop"]) == ((2, 1), 0)
    assert +stable.by_caller == {}
