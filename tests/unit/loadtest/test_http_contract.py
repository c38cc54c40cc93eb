"""The requests that a load test sends, and the answers that it accepts."""

import json
import math
from collections import Counter

import pytest

from loadtest.http_contract import REMEMBERED_ANSWERS, Outgoing, Reply, Requests, read_reply
from loadtest.samples import Sample
from loadtest.scenario import Task

SAMPLES = tuple(Sample(row=f"[{number},0.5]".encode(), label=str(number)) for number in range(10))
ASKED = Outgoing(Task.ONE_ROW, "/predict", b"", samples=(SAMPLES[3], SAMPLES[4]))
PROBLEM = {"content-type": "application/problem+json; charset=utf-8", "x-kanaria-version": "m:v2"}


def requests() -> Requests:
    return Requests(SAMPLES, rows=32, seed=5)


def answer(**changes: object) -> bytes:
    body = {"request_id": "r1", "version": "m:v1", "predictions": [{"label": "3", "confidence": 0.9}, {"label": "7"}]}
    return json.dumps(body | changes).encode()


@pytest.mark.parametrize(("task", "rows"), [(Task.ONE_ROW, 1), (Task.MANY_ROWS, 32)])
def test_a_prediction_request_carries_its_rows_and_knows_their_labels(task: Task, rows: int) -> None:
    """The true labels stay with the client, in the order of the rows that were sent."""
    outgoing = requests().make(task)
    sent = json.loads(outgoing.body)["features"]
    assert len(sent) == rows
    assert [sample.label for sample in outgoing.samples] == [str(row[0]) for row in sent]


def test_the_same_seed_draws_the_same_rows() -> None:
    """Two runs of one scenario send the same rows in the same order."""
    one, other = requests(), requests()
    assert [one.make(Task.ONE_ROW) for _ in range(50)] == [other.make(Task.ONE_ROW) for _ in range(50)]


def test_an_answer_gets_its_labels_once() -> None:
    """Feedback names the answer's request id and true labels; then the answer is forgotten."""
    source = requests()
    source.remember(ASKED, Reply(request_id="r1"))
    feedback = source.make(Task.FEEDBACK)
    assert (feedback.path, json.loads(feedback.body)) == ("/feedback", {"request_id": "r1", "labels": ["3", "4"]})
    assert source.make(Task.FEEDBACK).task is Task.ONE_ROW


@pytest.mark.parametrize("reply", [Reply(failure="HTTP 500", request_id="r1"), Reply(request_id=None)])
def test_a_failed_answer_is_never_labelled(reply: Reply) -> None:
    """Without an answer there is nothing that labels could join."""
    source = requests()
    source.remember(ASKED, reply)
    assert source.make(Task.FEEDBACK).task is Task.ONE_ROW


def test_answers_that_await_labels_are_bounded() -> None:
    """A run without feedback needs no more memory over time: answers are forgotten."""
    source = requests()
    for number in range(REMEMBERED_ANSWERS + 500):
        source.remember(ASKED, Reply(request_id=f"r{number}"))
    fed = [source.make(Task.FEEDBACK).task for _ in range(REMEMBERED_ANSWERS + 1)]
    assert Counter(fed) == {Task.FEEDBACK: REMEMBERED_ANSWERS, Task.ONE_ROW: 1}


def test_right_and_wrong_rows_are_counted_by_the_clients_own_labels() -> None:
    """Predicted 3 and 7 where 3 and 4 are true: one right, one wrong."""
    assert read_reply(ASKED, 200, {}, answer()) == Reply(None, "r1", "m:v1", correct=1, wrong=1)


@pytest.mark.parametrize(
    ("label", "tolerance", "answered", "is_right"),
    [
        ("3", 0, "3", True),
        ("3", 0, 3, True),
        ("3", 0, "4", False),
        (150.0, 60, 209.5, True),
        (150.0, 60, 210.5, False),
        (150.0, 60, "150", False),
    ],
)
def test_a_class_must_match_and_a_number_may_differ_within_its_tolerance(
    label: str | float, tolerance: float, answered: str | float, is_right: bool
) -> None:
    """Each sample has its own tolerance."""
    assert Sample(b"[1]", label, tolerance).is_right(answered) is is_right


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (503, b"overloaded", "HTTP 503: overloaded"),
        (200, b"not JSON", "breaks the contract"),
        (200, answer(version=None), "version"),
        (200, answer(predictions=[{"label": "3"}]), "1 predictions for 2 rows"),
        (200, answer(predictions=[{"confidence": 1}, {"confidence": 1}]), "label"),
        (204, b"", "HTTP 204 with an empty body"),
    ],
)
def test_an_answer_that_breaks_the_contract_is_a_failure_that_says_why(status: int, body: bytes, words: str) -> None:
    """Status 200 is not enough: the answer must hold one label per row, an id and a version."""
    failure = read_reply(ASKED, status, {}, body).failure
    assert failure is not None
    assert words in failure


def test_a_long_answer_is_cut_in_the_message() -> None:
    """A failure's message is bounded, whatever the server sends."""
    assert len(read_reply(ASKED, 500, {}, b"x" * 1_000_000).failure or "") < 300


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_bad_input_that_is_refused_as_a_problem_is_a_success(status: int) -> None:
    """Refusing bad input in the standard form is what the service must do."""
    reply = read_reply(Outgoing(Task.BAD_INPUT, "/predict", b""), status, PROBLEM, b"{}")
    assert reply == Reply(None, None, "m:v2")


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {"content-type": "application/json"}),
        (422, {"content-type": "application/json"}),
        (422, {}),
        (500, PROBLEM),
        (401, PROBLEM),  # a wrong API key must not make bad input look well handled
        (429, PROBLEM),
    ],
)
def test_bad_input_that_is_not_refused_as_a_problem_is_a_failure(status: int, headers: dict[str, str]) -> None:
    """Accepting it, breaking on it, or refusing it for another reason or in another form is a failure."""
    assert read_reply(Outgoing(Task.BAD_INPUT, "/predict", b""), status, headers, b"{}").failure


def test_no_bad_body_is_a_valid_request() -> None:
    """Each kind of bad body breaks the contract: not JSON, no row, or a row unlike the samples."""
    source = requests()
    for body in {source.make(Task.BAD_INPUT).body for _ in range(200)}:
        try:
            parsed = json.loads(body)
        except ValueError:
            continue
        rows = parsed["features"]
        has_right_rows = bool(rows) and all(
            len(row) == 2 and all(isinstance(x, int | float) and math.isfinite(x) for x in row) for row in rows
        )
        assert not (has_right_rows and set(parsed) == {"features"})


@pytest.mark.parametrize(("status", "fails"), [(200, False), (204, False), (404, True), (500, True)])
def test_feedback_succeeds_when_it_is_accepted(status: int, fails: bool) -> None:
    """Any 2xx is an accepted label."""
    reply = read_reply(Outgoing(Task.FEEDBACK, "/feedback", b""), status, {}, b"")
    assert (reply.failure is not None) is fails
