"""GET /readyz and GET /livez: whether a server is healthy."""

from collections.abc import Callable
from http import HTTPStatus

from starlette.types import ASGIApp

from service.server.plain_get import Text, plain_get
from service.server.problems import Problem


def probe(is_good: Callable[[], bool]) -> ASGIApp:
    """An endpoint that answers 200 while `is_good` returns true, otherwise 503."""

    async def answered() -> Text | Problem:
        if is_good():
            return Text(b"\n")
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the model, or a thread that writes logs, does not answer")

    return plain_get(answered)
