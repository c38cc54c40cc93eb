"""If both versions answered a request and only one was right, each version counts the pair once."""

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
    """Requests that only this version answered right, and those that only the other did."""
    return tally.paired["better"], tally.paired["worse"]


def count_again(folder: Path, stable: Tally, canary: Tally) -> None:
    """Let both versions count once more."""
    for version, tally in ((STABLE, stable), (CANARY, canary)):
        with open_log(folder, version, tally):
            pass


@pytest.fixture
def stable() -> Tally:
    return Tally()


@pytest.fixture
def canary() -> Tally:
    return Tally()


def test_only_requests_that_distinguish_the_versions_count(tmp_path: Path, stable: Tally, canary: Tally) -> None:
    """Both right; both wrong in two ways; canary right twice; stable right once. One request has no label yet."""
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
    """A copy may be answered, or its answer written, after the client has sent the label."""
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
    """Two workers of each version, feedback sent twice to any of them, and restarts: the sums are exact."""
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
def test_the_label_of_a_copy_counts_only_in_its_pair(tmp_path: Path, stable: Tally, canary: Tally, copied: str) -> None:
    """In a rollout step either version may answer the user; the answer to the copy is not a labelled prediction."""
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
def test_a_request_id_that_is_repeated_as_a_copy_stays_the_users(
    tmp_path: Path, stable: Tally, copy_first: bool
) -> None:
    """A caller may send a request twice: this version answers one of them, and a copy of the other."""
    with open_log(tmp_path, STABLE, stable) as log:
        for is_copy in (copy_first, not copy_first):
            log.record("r", ["a"], body=BODY, is_copy=is_copy)
        learn(log, "r", "a")
    assert (stable.counts["correct"], stable.counts["wrong"]) == (1, 0)


def test_answers_to_different_bodies_are_not_a_pair(tmp_path: Path, stable: Tally, canary: Tally) -> None:
    """A caller that uses one id for several requests does not make one version look better."""
    with open_log(tmp_path, STABLE, stable) as one, open_log(tmp_path, CANARY, canary) as other:
        one.record("r", ["a"], body=b"one question")
        other.record("r", ["b"], body=b"another")
        learn(one, "r", "b")
    count_again(tmp_path, stable, canary)
    assert [pairs(stable), pairs(canary)] == [(0, 0), (0, 0)]


def test_an_answer_of_only_one_version_makes_no_pair(tmp_path: Path, stable: Tally, canary: Tally) -> None:
    """This is the case in every rollout step where the canary has its own traffic."""
    with open_log(tmp_path, STABLE, stable) as one, open_log(tmp_path, CANARY, canary) as other:
        one.record("r", ["a"], body=BODY)
        other.record("q", ["b"], body=BODY)
        learn(one, "r", "a")
        learn(one, "q", "a")
    count_again(tmp_path, stable, canary)
    assert [pairs(stable), pairs(canary)] == [(0, 0), (0, 0)]


def test_numbers_are_right_within_the_tolerance(tmp_path: Path, stable: Tally, canary: Tally) -> None:
    """Of two estimates of 10 that are off by 0.4 and 0.6, only the nearer one is within the tolerance of 0.5."""
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
    """In 300 requests with four rows, only the canary is right about one row, and both are about the others."""
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


def test_a_label_that_fits_no_answer_makes_no_pair_and_stops_nothing(
    tmp_path: Path, stable: Tally, canary: Tally
) -> None:
    """Answers of another Bento may have any form; the next request is counted."""

    def same(one: object, other: object) -> bool:
        return abs(float(one) - float(other)) < 0.5  # that it raises is the point

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


def test_pairs_are_counted_by_the_caller_that_labelled_them(tmp_path: Path, stable: Tally, canary: Tally) -> None:
    with open_log(tmp_path, STABLE, stable) as one, open_log(tmp_path, CANARY, canary) as other:
        for number, caller in enumerate(("shop", "shop", "bank")):
            one.record(f"r{number}", ["a"], body=BODY, caller=caller)
            other.record(f"r{number}", ["b"], body=BODY, caller=caller)
            assert learn(one, f"r{number}", "a", caller=caller) is Feedback.ACCEPTED
    count_again(tmp_path, stable, canary)
    assert [pairs(stable), pairs(canary)] == [(3, 0), (0, 3)]
    assert (stable.by_caller["better shop"], stable.by_caller["better bank"]) == (2, 1)
    assert (canary.by_caller["worse shop"], canary.by_caller["worse bank"]) == (2, 1)


def test_pairs_of_an_older_bento_are_counted_without_a_caller(tmp_path: Path, stable: Tally, canary: Tally) -> None:
    """An older copy of the code knows only the table of sums."""
    with open_log(tmp_path, STABLE, stable):
        pass
    with closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as table, table:
        table.execute("INSERT INTO paired_labels VALUES (?, 2, 1)", (STABLE,))
    count_again(tmp_path, stable, canary)
    assert (pairs(stable), stable.by_caller["better shop"]) == ((2, 1), 0)
    assert +stable.by_caller == {}
