"""GET /readyz and GET /livez: asked several times a second by whoever watches a server, so answered without detours."""

from collections.abc import Callable
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from contract.http import PROBLEM_JSON, REQUEST_ID_HEADER
from service.server.http import request_id_of
from service.server.problems import Problem

_METHODS = ("GET", "HEAD")


def probe(is_good: Callable[[], bool]) -> ASGIApp:
    """An endpoint that answers 200 while `is_good`, else 503."""

    async def answer(scope: Scope, _: Receive, send: Send) -> None:
        problem = _problem(scope, is_good)
        status, body, headers = HTTPStatus.OK, b"\n", {"content-type": "text/plain; charset=utf-8"}
        if problem is not None:
            own_id = request_id_of(dict(scope["headers"]).get(REQUEST_ID_HEADER.encode()))
            status, body = problem.status, problem.body(own_id)
            headers = {"content-type": PROBLEM_JSON, REQUEST_ID_HEADER: own_id, **problem.headers}
        headers["content-length"] = str(len(body))
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status.value, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    return answer


def _problem(scope: Scope, is_good: Callable[[], bool]) -> Problem | None:
    if scope["method"] not in _METHODS:
        detail = f"{scope['method']} is not answered at {scope['path']}; use GET"
        return Problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, headers={"allow": ", ".join(_METHODS)})
    if not is_good():
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the model, or a thread that writes logs, does not answer")
    return None
