"""Turns BentoML's plain-text errors into RFC 9457 problems. BentoML answers every path but /predict and /feedback."""

from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contract.http import FEEDBACK_PATH, PREDICT_PATH, PROBLEM_JSON, REQUEST_ID_HEADER
from service.server.http import request_id_of
from service.server.problems import Problem

MAX_PATH_SHOWN = 100


def with_problems(app: ASGIApp) -> ASGIApp:
    """Wrap `app` so that its plain-text errors are sent as RFC 9457 problems."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        is_replaced = False

        async def send_or_replace(message: Message) -> None:
            nonlocal is_replaced
            if message["type"] == "http.response.start" and _is_plain_error(message):
                is_replaced = True
                start, body = _problem(scope, message)
                await send(start)
                await send(body)
            elif not is_replaced:
                await send(message)

        await app(scope, receive, send_or_replace)

    return wrapped


def _is_plain_error(message: Message) -> bool:
    content_type: bytes = dict(message["headers"]).get(b"content-type", b"")
    return content_type.startswith(b"text/plain") and int(message["status"]) >= HTTPStatus.BAD_REQUEST


def _problem(scope: Scope, message: Message) -> tuple[Message, Message]:
    status, path = HTTPStatus(message["status"]), scope["path"][:MAX_PATH_SHOWN]
    match status:
        case HTTPStatus.NOT_FOUND:
            detail = f"there is nothing at {path}; POST to {PREDICT_PATH} or {FEEDBACK_PATH}, or see the page at /"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            detail = f"{scope['method']} is not answered at {path}"
        case _:
            detail = status.description or status.phrase
    given: dict[bytes, Any] = dict(scope["headers"])
    own_id = request_id_of(given.get(REQUEST_ID_HEADER.encode()))
    body = Problem(status, detail).body(own_id)
    replaced = (b"content-type", b"content-length")
    headers = [
        *((name, value) for name, value in message["headers"] if name not in replaced),
        (b"content-type", PROBLEM_JSON.encode()),
        (b"content-length", str(len(body)).encode()),
        (REQUEST_ID_HEADER.encode(), own_id.encode()),
    ]
    return {**message, "headers": headers}, {"type": "http.response.body", "body": body}
