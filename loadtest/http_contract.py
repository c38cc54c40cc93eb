"""The service's HTTP contract as a client sees it: the requests to send, and what a correct answer is.

This module does no I/O, so every rule is tested without a server.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from pydantic import BaseModel, ValidationError

from contract.http import FEEDBACK_PATH, PREDICT_PATH, PROBLEM_JSON, REQUEST_ID_HEADER, VERSION_HEADER
from loadtest.samples import Sample
from loadtest.scenario import Task

REMEMBERED_ANSWERS = 1000  # answers that may still get labels; then each new answer replaces a random one
SHOWN_CHARACTERS = 200  # of an unexpected answer, in a failure's message
CONTENT_REFUSALS = frozenset({400, 413, 415, 422})  # 401, 404 or 429 would not refuse because of the content


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request to send."""

    task: Task
    path: str
    body: bytes
    samples: tuple[Sample, ...] = ()  # its rows, if it asks for predictions


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, as `read_reply` judged it."""

    failure: str | None = None  # why it breaks the contract; None: it does not
    request_id: str | None = None
    version: str | None = None
    correct: int = 0  # rows whose predicted label or number is right
    wrong: int = 0


class _Prediction(BaseModel):
    label: str | int | float  # other fields of a row are ignored here


class _Answer(BaseModel):
    request_id: str
    version: str
    predictions: list[_Prediction]


class Requests:
    """Makes the requests of one run, and keeps answers so that some get their labels later."""

    def __init__(self, samples: tuple[Sample, ...], *, rows: int, seed: int) -> None:
        """
        Args:
            samples: rows to draw from, with replacement.
            rows: rows of a many_rows request.
            seed: the rows drawn are the same for the same seed and order of calls.
        """
        self._samples = samples
        self._rows = rows
        self._random = random.Random(f"{seed}/rows")  # noqa: S311 - repeatable rows, not a secret
        self._unlabelled: list[tuple[str, tuple[Sample, ...]]] = []

    def make(self, task: Task) -> Outgoing:
        """The next request of kind `task`; a one_row request replaces feedback while no answer waits for labels."""
        match task:
            case Task.MANY_ROWS:
                return self._predict(task, self._rows)
            case Task.FEEDBACK if self._unlabelled:
                return self._feedback()
            case Task.BAD_INPUT:
                return Outgoing(task, PREDICT_PATH, self._bad_body())
            case _:
                return self._predict(Task.ONE_ROW, 1)

    def remember(self, outgoing: Outgoing, reply: Reply) -> None:
        """Keep predictions so that they can be labelled later, at most once. Other answers are ignored."""
        if reply.failure is not None or reply.request_id is None or not outgoing.samples:
            return
        if len(self._unlabelled) < REMEMBERED_ANSWERS:
            self._unlabelled.append((reply.request_id, outgoing.samples))
        else:
            self._unlabelled[self._random.randrange(REMEMBERED_ANSWERS)] = (reply.request_id, outgoing.samples)

    def _predict(self, task: Task, rows: int) -> Outgoing:
        drawn = self._random.choices(self._samples, k=rows)
        body = b'{"features":[' + b",".join(sample.row for sample in drawn) + b"]}"
        return Outgoing(task, PREDICT_PATH, body, tuple(drawn))

    def _feedback(self) -> Outgoing:
        # A random answer, not the oldest, so that the choice depends only on chance.
        chosen = self._random.randrange(len(self._unlabelled))
        self._unlabelled[chosen], self._unlabelled[-1] = self._unlabelled[-1], self._unlabelled[chosen]
        request_id, samples = self._unlabelled.pop()
        labels = [sample.label for sample in samples]
        return Outgoing(Task.FEEDBACK, FEEDBACK_PATH, orjson.dumps({"request_id": request_id, "labels": labels}))

    def _bad_body(self) -> bytes:
        row = self._random.choice(self._samples).row
        inner = row[1:-1]
        return self._random.choice(
            (
                b"this is not JSON",
                b'{"features":[]}',
                b'{"features":[[' + inner + b',"text"]]}',
                b'{"features":[[' + inner + b",NaN]]}",
                b'{"features":[[' + b",".join([inner] * 10) + b"]]}",  # more columns than any version may have
                b'{"features":[' + row + b'],"unknown":1}',
            )
        )


def read_reply(outgoing: Outgoing, status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """Decide whether an answer keeps the contract.

    Args:
        outgoing: the request that it answers.
        status: HTTP status.
        headers: the answer's headers; looked up by lower-case name.
        body: the answer's body.
    """
    version = headers.get(VERSION_HEADER)
    match outgoing.task:
        case Task.BAD_INPUT:
            return Reply(_bad_input_failure(status, headers, body), headers.get(REQUEST_ID_HEADER), version)
        case Task.FEEDBACK:
            failure = None if 200 <= status < 300 else _unexpected(status, body)
            return Reply(failure, headers.get(REQUEST_ID_HEADER), version)
        case _:
            return _read_predictions(outgoing, status, headers, body)


def _bad_input_failure(status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    media_type = (headers.get("content-type") or "").partition(";")[0].strip()
    if status in CONTENT_REFUSALS and media_type == PROBLEM_JSON:
        return None
    return f"bad input was not refused as {PROBLEM_JSON}: {media_type or 'no content type'}, " + _unexpected(
        status, body
    )


def _read_predictions(outgoing: Outgoing, status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    version = headers.get(VERSION_HEADER)
    if status != 200:
        return Reply(_unexpected(status, body), headers.get(REQUEST_ID_HEADER), version)
    try:
        answer = _Answer.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        failure = (
            f"the answer breaks the contract at {'.'.join(map(str, first['loc'])) or 'its start'}: {first['msg']}; "
        )
        return Reply(failure + _unexpected(status, body), headers.get(REQUEST_ID_HEADER), version)
    rows = len(outgoing.samples)
    if len(answer.predictions) != rows:
        return Reply(f"{len(answer.predictions)} predictions for {rows} rows", answer.request_id, answer.version)
    correct = sum(sample.is_right(p.label) for p, sample in zip(answer.predictions, outgoing.samples, strict=True))
    return Reply(None, answer.request_id, answer.version, correct, rows - correct)


def _unexpected(status: int, body: bytes) -> str:
    text = body[: SHOWN_CHARACTERS * 4].decode("utf-8", "replace")[:SHOWN_CHARACTERS]
    return f"HTTP {status}: {text}" if text else f"HTTP {status} with an empty body"
