"""No request can use unlimited memory. The sockets are real."""

import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.h11_impl import H11Protocol

from contract import bounded_http as bounded
from contract.bounded_http import LARGEST_FIELDS, bounded_http
from kanaria.stack.ports import free_port
from tests.support.endless import ENDLESS, MOST, accepted_bytes
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("serve")


async def _size(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


may_go_on = threading.Event()


async def _busy(_: Request) -> Response:
    return PlainTextResponse(str(may_go_on.wait(60)))  # blocks the event loop until the test lets it go on


@contextmanager
def serving(loop: Literal["auto", "asyncio"] = "asyncio") -> Iterator[str]:
    app = Starlette(routes=[Route("/x", _size, methods=["POST"]), Route("/busy", _busy, methods=["POST"])])
    port = free_port()
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, http=bounded_http(), loop=loop, log_config=None, timeout_keep_alive=60
    )  # asyncio reads received bytes before it looks at the clock, so a slow machine closes no client that has sent
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as made:
        yield made


@pytest.mark.parametrize("endless", ENDLESS)
def test_a_request_with_an_endless_head_is_disconnected(url: str, endless: str) -> None:
    """The server closes the connection before the head fills its memory, and answers the next request."""
    assert accepted_bytes(url, endless) < MOST / 2
    assert httpx.post(f"{url}/x", content=b"body", trust_env=False).text == "4"


def test_bodies_of_any_size_are_accepted(url: str) -> None:
    """A body may come whole, in large chunks or in small ones whose framing exceeds the limit between two chunks."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        assert client.post("/x", content=b"b" * 3 * LARGEST_FIELDS).text == str(3 * LARGEST_FIELDS)
        assert client.post("/x", content=iter([b"b" * 2**18] * 20)).text == str(20 * 2**18)
        assert client.post("/x", content=iter([b"b"] * 250_000)).text == "250000"


HEAD = b"POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n"
SLOW = {
    "silent": [b""],
    "slow headers": [HEAD + b"x: "],
    "slow headers behind a request": [HEAD + b"\r\na", HEAD + b"x: "],
}


def opened(url: str, parts: list[bytes], held: ExitStack) -> socket.socket:
    """Open a connection and send these parts, each after the answer to the part before."""
    asked = httpx.URL(url)
    client = held.enter_context(socket.create_connection((asked.host, asked.port), timeout=30))
    for number, part in enumerate(parts):
        assert not number or answered(client)
        client.sendall(part)
    return client


def answered(client: socket.socket) -> bool:
    """Whether the request with a body of one byte is answered with 200. The answer comes in several parts."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n1") and (part := client.recv(65536)):
        answer += part
    return answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("protocol", [auto.AutoHTTPProtocol, H11Protocol])
@pytest.mark.parametrize("parts", SLOW.values(), ids=SLOW)
def test_a_client_that_sends_no_complete_head_is_disconnected(
    parts: list[bytes], protocol: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a client kept its connection, and thus a file descriptor, without limit. A slow body is allowed."""
    monkeypatch.setattr(auto, "AutoHTTPProtocol", protocol)
    monkeypatch.setattr(bounded, "HEAD_WITHIN_S", 0.5)
    with serving() as url, ExitStack() as held:
        uploads = opened(url, [HEAD + b"\r\n"], held)
        assert read_to_end(opened(url, parts, held)) == b""
        uploads.sendall(b"a")
        assert answered(uploads)


def read_to_end(client: socket.socket) -> bytes:
    """The bytes that arrive until the server closes the connection."""
    try:
        return b"".join(iter(lambda: client.recv(65536), b""))
    except ConnectionResetError:
        return b""


def test_a_client_with_many_connections_leaves_file_descriptors_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """One client could use up a version's file descriptors, so that the gateway's next connection was not accepted."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 16))
    with serving() as url, ExitStack() as held:
        asking = opened(url, [HEAD + b"\r\na"], held)
        assert answered(asking)  # now its head has been read, before the other connections open
        silent = [opened(url, [b""], held) for _ in range(20)]
        assert [read_to_end(each) for each in silent[:8]] == [b""] * 8
        assert httpx.post(f"{url}/x", content=b"body", trust_env=False).text == "4"
        asking.sendall(HEAD + b"\r\na")
        assert answered(asking)


@pytest.mark.parametrize("loop", ["auto", "asyncio"])
def test_a_burst_of_requests_is_answered_completely(
    loop: Literal["auto", "asyncio"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy event loop accepts all connections before it reads from any: the gateway's own connections were closed."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 16))
    may_go_on.clear()
    with serving(loop) as url, ExitStack() as held:
        busy = opened(url, [HEAD.replace(b"/x", b"/busy") + b"\r\na"], held)
        burst = [opened(url, [HEAD + b"\r\na"], held) for _ in range(40)]
        may_go_on.set()
        answers = [each.recv(65536)[:12] for each in (busy, *burst)]
    assert answers == [b"HTTP/1.1 200"] * 41
