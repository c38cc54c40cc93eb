"""GET endpoints that a monitor asks every second, answered without middleware."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from contract.http import PROBLEM_JSON, REQUEST_ID_HEADER
from service.server.http import request_id_of
from service.server.problems import Problem

_METHODS = ("GET", "HEAD")


class Text(NamedTuple):
    """An answer with status 200."""

    body: bytes
    media_type: str = "text/plain; charset=utf-8"


def plain_get(answered: Callable[[], Awaitable[Text | Problem]]) -> ASGIApp:
    """An endpoint that sends the result of `answered`. It answers 405 to methods other than GET and HEAD."""

    async def endpoint(scope: Scope, _: Receive, send: Send) -> None:
        answer = await answered() if scope["method"] in _METHODS else _refusal(scope)
        if isinstance(answer, Problem):
            own_id = request_id_of(dict(scope["headers"]).get(REQUEST_ID_HEADER.encode()))
            status, body = answer.status, answer.body(own_id)
            headers = {"content-type": PROBLEM_JSON, REQUEST_ID_HEADER: own_id, **answer.headers}
        else:
            status, body, headers = HTTPStatus.OK, answer.body, {"content-type": answer.media_type}
        headers["content-length"] = str(len(body))
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status.value, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    return endpoint


def _refusal(scope: Scope) -> Problem:
    detail = f"{scope['method']} is not answered at {scope['path']}; use GET"
    return Problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, headers={"allow": ", ".join(_METHODS)})
