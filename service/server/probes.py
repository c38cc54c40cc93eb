"""GET /readyz and GET /livez: asked several times a second by whoever watches a server, so answered without detours."""

from collections.abc import Callable
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from contract.http import PROBLEM_JSON
from service.server.http import request_id_of
from service.server.problems import Problem

_METHODS = ("GET", "HEAD")


def probe(is_good: Callable[[], bool]) -> ASGIApp:
    """An endpoint that answers 200 while `is_good`, else 503."""

    async def answer(scope: Scope, _: Receive, send: Send) -> None:
        problem = _problem(scope["method"], is_good)
        status, kind, body = HTTPStatus.OK, "text/plain; charset=utf-8", b"\n"
        if problem is not None:
            status, kind, body = problem.status, PROBLEM_JSON, problem.body(request_id_of(None))
        headers = {"content-type": kind, "content-length": str(len(body)), **(problem.headers if problem else {})}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status.value, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    return answer


def _problem(method: str, is_good: Callable[[], bool]) -> Problem | None:
    if method not in _METHODS:
        allowed = ", ".join(_METHODS)
        return Problem(
            HTTPStatus.METHOD_NOT_ALLOWED, f"{method} is not answered here; use GET", headers={"allow": allowed}
        )
    if not is_good():
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the model, or a thread that writes logs, does not answer")
    return None
