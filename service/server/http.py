"""POST /predict and POST /feedback as plain ASGI apps: a body in, JSON or a problem out, every request counted."""

import random
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

import orjson
import structlog
from starlette.types import Receive, Scope, Send

from contract.http import (
    CALLER_HEADER,
    COPY_HEADER,
    LABELLER_HEADER,
    OWN_CALLER,
    PROBLEM_JSON,
    REQUEST_ID_HEADER,
    VERSION_HEADER,
)
from service.logs.answers import AnswerLog
from service.logs.predictions import PredictionLog
from service.server.batching import Abandoned, Batcher, Overdue, Overloaded
from service.server.feedback import joined
from service.server.metrics import Metrics
from service.server.one_write import send_whole
from service.server.parsing import REQUEST_ID_PATTERN, BodyParser
from service.server.problems import RETRY_LATER, Problem

MAX_BODY_BYTES = 4 * 1024 * 1024
_REQUEST_ID, _VERSION, _COPY = REQUEST_ID_HEADER.encode(), VERSION_HEADER.encode(), COPY_HEADER.encode()
_CALLER, _LABELLER, _OWN_CALLER = CALLER_HEADER.encode(), LABELLER_HEADER.encode(), OWN_CALLER.encode()
_SAFE_REQUEST_ID = re.compile(REQUEST_ID_PATTERN)

Gone = Callable[[], Coroutine[None, None, None]]  # returns when the client has closed the connection


class Asked(NamedTuple):  # made once per request, in a third of the time of a frozen dataclass
    """One request whose body was read."""

    body: bytes
    request_id: str
    caller: str  # the name of the request's key; for feedback, of the key whose answers it labels
    sender: str  # for feedback, the name of the key that sent it
    gone: Gone
    connection: object | None  # None: unknown
    is_copy: bool  # a copy of a request that another version answers: no user waits, and it is not counted as a user's


Handler = Callable[[Asked], Awaitable[bytes]]

log = structlog.get_logger()


class ClientGone(Exception):
    """The client closed the connection before it had sent its request."""


class Route:
    """One POST route.

    Args:
        path: the route's path, also in its metrics.
        version: the Bento tag, sent with every answer.
        handler: returns the JSON answer, or raises Problem.
        metrics: counts the requests.
    """

    def __init__(self, path: str, version: str, handler: Handler, metrics: Metrics) -> None:
        self._path = path
        self._version = version.encode("latin-1")
        self._handler = handler
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = request_id_of(headers.get(_REQUEST_ID))
        caller, is_copy = headers.get(_CALLER, _OWN_CALLER), _COPY in headers
        names = caller.decode("latin-1"), headers.get(_LABELLER, caller).decode("latin-1")
        status, content_type, problem = HTTPStatus.OK, b"application/json", None
        try:
            body = await _read(scope, headers, receive)
            payload = await self._handler(
                Asked(body, request_id, *names, partial(_gone, receive), _connection(scope), is_copy)
            )
        except (ClientGone, Abandoned):
            return
        except Problem as known:
            problem = _packed(headers) or known if known.status is HTTPStatus.BAD_REQUEST else known
        except Exception:
            log.exception("request_failed", route=self._path, request_id=request_id)
            problem = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the model failed on this request; it has been logged")
        if problem is not None:
            status, content_type, payload = problem.status, PROBLEM_JSON.encode(), problem.body(request_id)
        if not is_copy:
            self._metrics.count_request(self._path, status, time.perf_counter() - started_s)
        answer_headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(payload)),
            (_REQUEST_ID, request_id.encode()),
            (_VERSION, self._version),
        ]
        if problem is not None:
            answer_headers += [(name.encode(), value.encode("latin-1")) for name, value in problem.headers.items()]
        start = {"type": "http.response.start", "status": status.value, "headers": answer_headers}
        await send_whole(send, start, {"type": "http.response.body", "body": payload})


class Handlers:
    """The handlers of the two routes."""

    def __init__(
        self,
        version: str,
        parser: BodyParser,
        batcher: Batcher,
        answers: AnswerLog,
        *,
        prediction_log: PredictionLog | None = None,
    ) -> None:
        self._version = version
        self._parser = parser
        self._batcher = batcher
        self._answers = answers
        self._prediction_log = prediction_log

    async def predict(self, asked: Asked) -> bytes:
        """Answer each row of the body, in order."""
        body, request_id = asked.body, asked.request_id
        rows, is_listed = self._parser.rows(body)
        try:
            predictions = await self._batcher.predict(
                rows, connection=asked.connection, gone=asked.gone, is_counted=not asked.is_copy
            )
        except (Overloaded, Overdue) as error:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}; try again later", headers=RETRY_LATER) from None
        labels = [prediction.label for prediction in predictions]
        self._answers.record(request_id, labels, body=body, caller=asked.caller, is_copy=asked.is_copy)
        answer = orjson.dumps({"request_id": request_id, "version": self._version, "predictions": predictions})
        if self._prediction_log and not asked.is_copy:
            self._prediction_log.record(body, rows, answer, is_listed=is_listed)
        return answer

    async def feedback(self, asked: Asked) -> bytes:
        """Join the truth to an earlier answer; repeated feedback counts once."""
        return await joined(
            self._answers,
            self._parser.feedback(asked.body),
            caller=asked.caller,
            sender=asked.sender,
            first_unknown=self._parser.first_unknown,
        )


def request_id_of(given: bytes | None) -> str:
    """The caller's id if it is safe to log and to send back; otherwise a new one."""
    if given is not None and _SAFE_REQUEST_ID.fullmatch(text := given.decode("latin-1")):
        return text
    return f"{random.getrandbits(128):032x}"  # not a secret: secure random numbers from the kernel would take 5 us


def _connection(scope: Scope) -> object | None:
    """The connection of a request; None: unknown, for example if a proxy's headers name the client without a port."""
    client = scope.get("client")
    return client if client and client[1] else None


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _packed(headers: dict[bytes, bytes]) -> Problem | None:
    """The likely reason why a body is not JSON: its sender compressed it. The header alone changes nothing."""
    coding = headers.get(b"content-encoding", b"identity").decode("latin-1")
    if coding.strip().lower() in ("", "identity"):
        return None
    detail = f"the header content-encoding says {coding[:40]!r}; send the JSON as it is, without that header"
    return Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, headers={"accept-encoding": "identity"})


async def _read(scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> bytes:
    """Return the whole body.

    Raises: Problem if it is not a POST or too large; ClientGone if the client disconnects.
    """
    if scope["method"] != "POST":
        detail = f"{scope['method']} is not answered here; use POST"
        raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, headers={"allow": "POST"})
    if int(headers.get(b"content-length", b"0")) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
        if not message.get("more_body", False):
            return bytes(body)


def _too_large() -> Problem:
    detail = f"the body is larger than {MAX_BODY_BYTES:,} bytes; send fewer rows"
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
