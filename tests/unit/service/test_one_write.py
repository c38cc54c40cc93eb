"""A whole answer is one write to its connection in both of uvicorn's protocols, with the same bytes as two writes."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.server.one_write import send_whole
from tests.support.waiting import eventually

PROTOCOLS = [H11Protocol, HttpToolsProtocol]
LARGE = b"0123456789" * 1_000_000
ASK = b"GET /%b HTTP/1.1\r\nhost: a\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the path of the request, and without a body for `/`."""
    path = scope["path"].encode()
    body = {b"/": b"", b"/large": LARGE}.get(path, path)
    headers = [(b"content-length", b"%d" % len(body))] if body else []
    head = {"type": "http.response.start", "status": 200 if body else 204, "headers": headers}
    await send_whole(send, head, {"type": "http.response.body", "body": body})


@dataclass
class Watched:
    """A server and what it wrote to its connections."""

    port: int = 0
    writes: list[bytes] = field(default_factory=list)


class Watching:
    """A transport that records its writes."""

    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self._transport, self._writes = transport, writes

    def write(self, data: bytes) -> None:
        self._writes.append(bytes(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@contextmanager
def watched(protocol: Any) -> Iterator[Watched]:
    found = Watched()

    class Noting(protocol):  # the test chooses which
        def connection_made(self, transport: Any) -> None:
            super().connection_made(Watching(transport, found.writes))

    server = uvicorn.Server(uvicorn.Config(app, http=Noting, log_config=None, lifespan="off"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        found.port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        eventually(lambda: server.started)
        yield found
        server.should_exit = True
        thread.join()


@pytest.fixture(params=PROTOCOLS)
def server(request: pytest.FixtureRequest) -> Iterator[Watched]:
    with watched(request.param) as found:
        yield found


def exchange(server: Watched, sent: bytes, until: bytes | None) -> bytes:
    """The bytes that come back until they end with `until`; None: until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(sent)
        got = b""
        while until is None or not got.endswith(until):
            if not (more := client.recv(65536)):
                break
            got += more
        return got


def test_head_and_body_are_one_write(server: Watched) -> None:
    """This holds for several answers on one connection, in order, even if they were requested together."""
    got = exchange(server, b"".join(ASK % path for path in (b"one", b"two", b"three")), b"/three")
    assert [write.rpartition(b"\r\n\r\n")[2] for write in server.writes] == [b"/one", b"/two", b"/three"]
    assert all(write.startswith(b"HTTP/1.1 200 OK\r\n") for write in server.writes)
    assert got == b"".join(server.writes)


def test_an_answer_is_complete_before_its_connection_is_closed(server: Watched) -> None:
    """The client asked the server to close the connection."""
    got = exchange(server, b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", None)
    assert (got.endswith(b"\r\n\r\n/last"), b"connection: close" in got.lower(), len(server.writes)) == (True, True, 1)


def test_an_answer_without_a_body_is_sent(server: Watched) -> None:
    """HEAD requests and some statuses have no body; the connection stays open."""
    sent = b"HEAD /head HTTP/1.1\r\nhost: a\r\n\r\n" + ASK % b"" + ASK % b"next"
    got = exchange(server, sent, b"/next")
    heads = [part.split(b"\r\n")[0] for part in got.split(b"\r\n\r\n")]
    assert heads == [b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 200 OK", b"/next"]


def test_a_client_that_left_does_not_affect_others(server: Watched) -> None:
    """The server answers the next client."""
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(ASK % b"gone")
    assert exchange(server, ASK % b"here", b"/here").endswith(b"/here")


def test_a_large_answer_arrives_completely(server: Watched) -> None:
    """The answer is larger than the system accepts at once; the answer after it arrives too."""
    got = exchange(server, ASK % b"large" + ASK % b"next", b"/next")
    assert (LARGE in got, len(got) - len(LARGE) < 1000) == (True, True)
