"""Joins feedback, the truth about an earlier answer, to that answer, or refuses it with the reason."""

import reprlib
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Protocol

import orjson

from contract.answer_types import Label
from contract.http import OWN_CALLER
from service.logs.answers import AnswerLog, AnswersUnavailable, Feedback
from service.server.problems import RETRY_LATER, Problem


class Truth(Protocol):
    """The validated body of a request to /feedback."""

    @property
    def request_id(self) -> str: ...

    @property
    def labels(self) -> Sequence[Label]: ...


async def joined(
    answers: AnswerLog,
    truth: Truth,
    *,
    caller: str = OWN_CALLER,
    sender: str | None = None,
    first_unknown: Callable[[Sequence[Label]], Label | None] = lambda _: None,
) -> bytes:
    """Join the truth to the answer; repeated feedback counts once. Returns the JSON for the sender.

    Args:
        caller: the name of the key whose answers the sender may label.
        sender: the name of the sender's own key; None: `caller`.
        first_unknown: returns the first label that no version can give.

    Raises: Problem.
    """
    try:
        outcome = await answers.learn(truth.request_id, truth.labels, caller=caller, sender=sender)
    except AnswersUnavailable:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "answers cannot be read now; try again later", headers=RETRY_LATER
        ) from None
    match outcome:
        case Feedback.UNKNOWN:
            raise Problem(
                HTTPStatus.NOT_FOUND,
                f"there is no answer to request {truth.request_id}; send the `request_id` of an answer",
                pointer="#/request_id",
            )
        case Feedback.WRONG_LENGTH:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"labels: expected one per row of that request, saw {len(truth.labels)}",
                pointer="#/labels",
            )
        case Feedback.UNKNOWN_LABEL:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "labels: expected labels that a version here can answer with, saw "
                f"{reprlib.repr(first_unknown(truth.labels))}",
                pointer="#/labels",
            )
        case Feedback.ACCEPTED | Feedback.DUPLICATE:
            return orjson.dumps({"request_id": truth.request_id, "counted": outcome is Feedback.ACCEPTED})
