"""POST /feedback for services without it: the truth about answers that the observer records."""

import reprlib
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contract.answer_types import Label
from contract.complaints import first_complaint
from contract.http import CALLER_HEADER, FEEDBACK_PATH, LABELLER_HEADER, OWN_CALLER, PROBLEM_JSON, REQUEST_ID_HEADER
from kanaria.stack.observer_records import KeptRecords
from service.server.feedback import joined
from service.server.problems import RETRY_LATER, Problem

_MOST_BYTES = 16 * 1024

_EXAMPLE = '{"request_id": "...", "labels": ["..."]} with the x-request-id of an answer'


class _Body(BaseModel):
    """The truth about one answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    request_id: str = Field(min_length=1, max_length=128)
    labels: list[Any] = Field(min_length=1, max_length=1)


@dataclass(frozen=True, slots=True)
class _Truth:
    """The truth about one answer, as recorded."""

    request_id: str
    labels: list[Label]


def feedback_app(records: KeptRecords) -> Starlette:
    """The application to which the gateway passes feedback."""

    async def feedback(request: Request) -> Response:
        request_id = request.headers.get(REQUEST_ID_HEADER, "")  # the gateway sets it for each request
        try:
            return Response(await _joined(request, records), media_type="application/json")
        except Problem as problem:
            return Response(problem.body(request_id), problem.status, headers=problem.headers, media_type=PROBLEM_JSON)

    return Starlette(routes=[Route(FEEDBACK_PATH, feedback, methods=["POST"])])


async def _joined(request: Request, records: KeptRecords) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {_MOST_BYTES:,} bytes")
    try:
        given = _Body.model_validate_json(bytes(body))
    except ValidationError as error:
        detail = first_complaint(error, whole="the body")
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{detail}; send {_EXAMPLE}") from None
    if not records.expected or (table := records.table) is None:
        detail = "the observer has recorded no answer since it started; try again later"
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers=RETRY_LATER)
    label = records.truth(given.labels[0])
    if label is None:
        detail = f"labels: expected {records.expected}, saw {reprlib.repr(given.labels[0])}"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, pointer="#/labels/0")
    caller = request.headers.get(CALLER_HEADER, OWN_CALLER)  # the caller whose answers the sender may label
    sender = request.headers.get(LABELLER_HEADER, caller)
    try:
        return await joined(table, _Truth(given.request_id, [label]), caller=caller, sender=sender)
    except Problem as problem:
        if problem.status != HTTPStatus.NOT_FOUND:
            raise
        records.count_unknown()
        detail = f"{problem.detail}; or the answer was not observed: see `observe` in the plan"
        raise Problem(HTTPStatus.NOT_FOUND, detail, pointer=problem.pointer) from None
