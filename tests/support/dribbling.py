"""A server that sends one byte at a time: every part of an answer comes soon, but the whole answer comes late."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from tests.support.running_server import running_server

_PART_S = 0.05
_PARTS = 300  # of an answer: it is complete after a quarter of a minute


class Dribbling(ThreadingHTTPServer):
    """Answers with 200; `at_once` returns the answer to send in one piece, from the request's path and body."""

    def __init__(self, part: Literal["head", "body"], at_once: Callable[[str], bytes | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.part, self.at_once = part, at_once
        self.ends = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Ignore it: clients that give up are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Dribbling)
        asked = f"{self.path} {self.rfile.read(int(self.headers.get('content-length', 0))).decode()}"
        known = server.at_once(asked)
        if known is not None:
            self.wfile.write(b"HTTP/1.0 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(known), known))
        elif server.part == "head":
            self._dribble(b"HTTP/1.1 200 OK\r\nx: ", b"\r\ncontent-length: 2\r\n\r\n{}")
        else:
            self._dribble(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (_PARTS + 2), b"{}")

    def do_POST(self) -> None:
        self.do_GET()

    def _dribble(self, begin: bytes, end: bytes) -> None:
        self.wfile.write(begin)
        for _ in range(_PARTS):
            if self.server.ends.wait(_PART_S):  # type: ignore[attr-defined] # as above
                return
            self.wfile.write(b" ")
        self.wfile.write(end)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def dribbling(
    part: Literal["head", "body"] = "body", at_once: Callable[[str], bytes | None] = lambda _: None
) -> Iterator[Dribbling]:
    """Run such a server until the block ends."""
    with running_server(Dribbling(part, at_once)) as server:
        try:
            yield server
        finally:
            server.ends.set()
