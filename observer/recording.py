"""Records some of the users' requests with stable's answers, spread over routes, while a command asks for it.

Nothing waits for it: the gateway passes requests to it and goes on. It looks at a limited number of requests per
second. A route with enough requests gets another one only now and then.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from contract import metrics as m
from contract.recorded import (
    KEPT_HEADERS,
    LARGEST_ANSWER,
    LARGEST_REQUEST,
    MOST_PER_ROUTE,
    RecordedFolder,
    RecordedRequest,
    Recording,
    has_secret,
)
from contract.threads import in_thread
from observer.answers import Reader
from observer.messages import ATTRIBUTES, ROUTE_NAME

log = structlog.get_logger()

_MOST_PER_S = 20  # requests per second that are read as a whole
_ANOTHER_AFTER_S = 5.0  # before a route that has enough gets another request
_LOOKS_EVERY_S = 0.5  # how often to check whether a command wants requests
_SUCCESS = 2  # the class of a status


@dataclass(slots=True)
class _Asked:
    """A request that is being read."""

    route: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)
    is_whole: bool = False
    reader: Reader | None = None
    status: int = 0
    media_type: str = ""
    encoding: str = ""


class Recorder:
    """Writes requests into `folder`; calls `seen` with the outcome of each, one of `metrics.RECORDED`."""

    def __init__(self, folder: RecordedFolder, seen: Callable[[str], None]) -> None:
        self._folder, self._seen = folder, seen
        self._writing = asyncio.Lock()
        self._wanted: Recording | None = None
        self._looked_s = self._second_s = 0.0
        self._in_second = 0
        self._kept: Counter[str] = Counter()  # by route, in this recording
        self._kept_s: dict[str, float] = {}
        self._digests: dict[Path, bytes] = {}  # of the requests on disk, by file

    async def observe(self, messages: AsyncIterator[Any], version: str) -> None:
        """Read one request and its answer, as far as needed."""
        asked: _Asked | None = None
        async for message in messages:
            if asked is None:
                asked = self._begun(message)
                if asked is None:
                    return
                continue
            outcome = _read_on(asked, message)
            if outcome == m.KEPT:
                await self._keep(asked, version)
                return
            if outcome:
                self._seen(outcome)
                return
        if asked is not None:
            self._seen(m.CUT_REQUEST)

    def _begun(self, message: Any) -> _Asked | None:
        """The request that begins; None if it is not to be read."""
        wanted, now_s = self._recording(), time.monotonic()
        attributes = message.attributes.get(ATTRIBUTES, {})
        route = str(attributes[ROUTE_NAME]) if ROUTE_NAME in attributes else ""
        if wanted is None or not route or route in wanted.leave_out:
            return None  # a route without a name may stream its answers
        if self._kept[route] >= MOST_PER_ROUTE and now_s - self._kept_s[route] < _ANOTHER_AFTER_S:
            return None
        if now_s - self._second_s >= 1:
            self._second_s, self._in_second = now_s, 0
        self._in_second += 1
        if self._in_second > _MOST_PER_S:
            return None
        headers = {header.key: header.raw_value.decode("latin-1") for header in message.request_headers.headers.headers}
        path = headers.get(":path", "")
        if has_secret(path.removeprefix(route)):  # the name of the route itself is not a secret
            self._seen(m.PRIVATE)
            return None
        if not path.startswith("/"):
            return None
        kept = {name: headers[name] for name in KEPT_HEADERS if name in headers}
        is_whole = bool(message.request_headers.end_of_stream)
        return _Asked(route, headers.get(":method", ""), path, kept, is_whole=is_whole)

    def _recording(self) -> Recording | None:
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOKS_EVERY_S:
            found = self._folder.recording(time.time())
            if found != self._wanted:
                self._kept.clear()
            self._wanted, self._looked_s = found, now_s
        return self._wanted

    async def _keep(self, asked: _Asked, version: str) -> None:
        if asked.reader is None:
            return
        answer = asked.reader.answer()
        is_small = answer.body is not None and len(answer.body) <= LARGEST_ANSWER
        request = RecordedRequest(
            at_s=time.time(),
            version=version,
            route=asked.route,
            method=asked.method,
            path=asked.path,
            headers=asked.headers,
            body=bytes(asked.body),
            status=asked.status,
            media_type=asked.media_type,
            encoding=asked.encoding,
            answer=answer.body if is_small else None,
            answer_digest=answer.sha256.hex(),
        )
        try:
            async with self._writing:
                is_new = await in_thread(partial(self._write, request))
        except OSError as error:
            self._seen(m.UNWRITTEN_REQUEST)
            log.warning("request_not_recorded", error=error.strerror)  # without the path, which may be private
            return
        if not is_new:
            self._seen(m.KNOWN)
            return
        self._kept[asked.route] += 1
        self._kept_s[asked.route] = time.monotonic()
        self._seen(m.KEPT)

    def _write(self, request: RecordedRequest) -> bool:
        """Keep a request, unless an equal one is on disk. Returns whether it was kept. Raises OSError."""
        digests = {}
        for file in self._folder.files():
            known = self._digests.get(file.path)
            if known is None and (found := self._folder.at(file)) is not None:
                known = found.same
            if known is not None:
                digests[file.path] = known
        self._digests = digests
        if request.same in digests.values():
            return False
        self._folder.keep(request)
        return True


def _read_on(asked: _Asked, message: Any) -> str | None:
    """Read the next part. Returns the outcome of the request once it is known; `kept`: the request is complete."""
    is_over = False
    if message.HasField("request_body"):
        asked.body += message.request_body.body
        asked.is_whole = asked.is_whole or bool(message.request_body.end_of_stream)
        return m.TOO_LARGE if len(asked.body) > LARGEST_REQUEST else None
    if message.HasField("response_headers"):
        headers = {
            header.key: header.raw_value.decode("latin-1") for header in message.response_headers.headers.headers
        }
        status = headers.get(":status", "")
        asked.status = int(status) if status.isdigit() else 0
        if asked.status // 100 != _SUCCESS:
            return m.UNSUCCESSFUL
        asked.media_type, asked.encoding = (headers.get(name, "") for name in ("content-type", "content-encoding"))
        asked.reader = Reader(asked.status, asked.media_type, asked.encoding)
        is_over = bool(message.response_headers.end_of_stream)
    elif message.HasField("response_body") and asked.reader is not None:
        asked.reader.add(message.response_body.body)
        is_over = bool(message.response_body.end_of_stream)
    if not is_over:
        return None
    return m.KEPT if asked.is_whole else m.CUT_REQUEST
