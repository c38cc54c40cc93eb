"""Idle connections to the controller cannot exhaust its file descriptors; tested with real sockets."""

import asyncio
import resource
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from contract.loopback import answers
from contract.tls import unchecked
from kanaria.settings import Settings
from kanaria.stack import controller_server, handshakes
from kanaria.stack.certificates import controller_certificate, keep
from kanaria.stack.ports import free_port
from rollout.ui.admission import Admission
from rollout.ui.callers import Callers
from tests.support.certificates import pair
from tests.support.endless import ENDLESS, MOST, accepted_bytes
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("serve")

HEADERS = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n"
CLIENT_HELLO = b"\x16\x03\x01\x02\x00"  # the first bytes


def sends(data: bytes, *, tls: bool = False) -> Callable[[socket.socket], socket.socket]:
    """A client that sends these bytes and then waits."""

    def begin(plain: socket.socket) -> socket.socket:
        one = unchecked().wrap_socket(plain) if tls else plain
        one.sendall(data)
        return one

    return begin


Begin = Callable[[socket.socket], socket.socket]
CROWDS: dict[str, tuple[str, Begin]] = {
    "silent": ("http", sends(b"")),
    "slow headers": ("http", sends(HEADERS + b"x: ")),
    "answered once": ("http", sends(HEADERS + b"\r\n")),
    "no handshake": ("https", sends(b"")),
    "half a handshake": ("https", sends(CLIENT_HELLO)),
    "no TLS": ("https", sends(HEADERS + b"\r\n")),
    "silent after the handshake": ("https", sends(b"", tls=True)),
    "slow headers after the handshake": ("https", sends(HEADERS + b"x: ", tls=True)),
}
of_each_crowd = pytest.mark.parametrize(("url", "begin"), CROWDS.values(), ids=CROWDS, indirect=["url"])
of_both_schemes = pytest.mark.parametrize("url", ["http", "https"], indirect=True)


def opened(url: str, begin: Begin) -> socket.socket | None:
    """A connection that started with `begin`; None if the server closed it at once."""
    plain = socket.create_connection(("127.0.0.1", port_of(url)))
    plain.settimeout(60)
    try:
        return begin(plain)
    except OSError:
        plain.close()
        return None


@cache
def port_of(url: str) -> int:
    port = httpx.URL(url).port
    assert port is not None
    return port


def ask(url: str) -> str:
    return httpx.get(f"{url}/livez", trust_env=False, timeout=60, verify=unchecked()).text


def command_answered(url: str) -> str:
    return httpx.post(f"{url}/command", headers=TOKEN, trust_env=False, timeout=60, verify=unchecked()).text


TOKEN = {"authorization": "Bearer the-token"}


class Command:
    """An endpoint that answers only when the test allows it."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    async def __call__(self, _: Request) -> Response:
        self.has_begun.set()
        await asyncio.to_thread(self.may_end.wait)
        return PlainTextResponse("done")


@pytest.fixture
def command() -> Command:
    return Command()


@pytest.fixture
def url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> Iterator[str]:
    """A controller server that speaks HTTP or HTTPS, as the test asks; its timeouts are ten times shorter."""
    for module, name in (
        (controller_server, "_FIRST_REQUEST_S"),
        (controller_server, "_OLDEST_S"),
        (controller_server, "_GRACE_S"),
        (handshakes, "_HANDSHAKE_S"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name) / 10)
    settings = Settings(home=tmp_path, controller_port=free_port())
    if request.param == "https":
        made = pair(tmp_path / "made")
        settings = settings.model_copy(
            update={"controller_tls_certificate": made.certificate, "controller_tls_key": made.key}
        )
        certificate = controller_certificate(settings)
        assert certificate is not None
        keep(settings, certificate)
    guarded = Admission(Callers("the-token", tuple), None).for_people(command)
    routes = [Route("/livez", lambda _: PlainTextResponse("ok")), Route("/command", guarded, methods=["POST"])]
    app = Starlette(routes=routes)
    server = uvicorn.Server(controller_server.served(app, settings)[0])
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    yield settings.controller_url
    command.may_end.set()
    server.should_exit = True
    thread.join()


@of_each_crowd
def test_idle_connections_are_limited_and_closed(url: str, begin: Begin) -> None:
    """At most 256 of 600 stay open, until their first request is due. Then other clients are served again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))

    def kept() -> int:
        found = psutil.Process().net_connections(kind="tcp")
        return sum(one.laddr.port == port_of(url) and one.status == psutil.CONN_ESTABLISHED for one in found)

    with ExitStack() as stack:
        for _ in range(600):
            if one := opened(url, begin):
                stack.enter_context(one)
        eventually(lambda: kept() <= controller_server._MOST_CONNECTIONS)
        eventually(lambda: answers(f"{url}/livez", timeout_s=5), within_s=20)
        eventually(lambda: kept() == 0, within_s=40)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@of_both_schemes
def test_a_client_that_keeps_sending_requests_is_served(url: str) -> None:
    """The requests follow one another on one connection."""
    with httpx.Client(base_url=url, trust_env=False, verify=unchecked()) as client:
        for _ in range(50):
            assert client.get("/livez").text == "ok"


@pytest.mark.parametrize("url", ["https"], indirect=True)
def test_a_request_in_the_segment_that_ends_the_handshake_is_answered(url: str) -> None:
    """TLS decrypts that request before the HTTP protocol is set up."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = unchecked().wrap_bio(incoming, outgoing)
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=20) as plain:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(65536))
        client.write(HEADERS + b"connection: close\r\n\r\n")
        plain.sendall(outgoing.read())
        answer = b""
        while not answer.endswith(b"ok"):
            try:
                answer += client.read(65536)
            except ssl.SSLWantReadError:
                incoming.write(plain.recv(65536))
    assert answer.startswith(b"HTTP/1.1 200")


class _Exhausted(ssl.SSLContext):
    """A context that runs out of memory at the handshake."""

    def wrap_bio(self, *_: object, **__: object) -> ssl.SSLObject:
        raise MemoryError


def test_any_failed_handshake_frees_its_slot() -> None:
    """Otherwise such connections would use up all slots one by one, and the client would keep waiting."""

    async def places() -> tuple[int, bytes]:
        loop, connections = asyncio.get_running_loop(), set[Any]()
        context = _Exhausted(ssl.PROTOCOL_TLS_SERVER)
        loop.set_exception_handler(lambda *_: None)

        def began() -> handshakes.Handshake:
            return handshakes.Handshake(
                context, asyncio.Protocol(), loop=loop, connections=connections, make_room=lambda *_: None
            )

        async with await loop.create_server(began, "127.0.0.1") as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            try:
                answer = await asyncio.wait_for(reader.read(), 20)
            except ConnectionResetError:
                answer = b""
            writer.close()
        return len(connections), answer

    assert asyncio.run(places()) == (0, b"")


@of_both_schemes
def test_endless_headers_end_the_connection(url: str) -> None:
    """They used memory, and time that grew with the square of their length, while no other client was answered."""
    sent = 0
    with opened(url, sends(HEADERS + b"x: ", tls=url.startswith("https"))) or socket.socket() as one, suppress(OSError):
        while sent < 100 * 2**20:
            sent += one.send(b"a" * 65536)
    assert 2**20 < sent < 20 * 2**20  # most of it is in the kernel's buffers
    assert ask(url) == "ok"


@pytest.mark.parametrize("url", ["http"], indirect=True)
@pytest.mark.parametrize("endless", ENDLESS)
def test_an_endless_request_ends_the_connection(url: str, endless: str) -> None:
    """Endless trailers after a chunked body end it too: they used memory as long as the connection lived."""
    assert accepted_bytes(url, endless) < MOST / 2
    assert ask(url) == "ok"


@of_both_schemes
def test_a_long_body_is_not_limited_like_headers(url: str, command: Command) -> None:
    """The bodies have several MiB, on a connection that is used again."""
    command.may_end.set()
    with httpx.Client(base_url=url, trust_env=False, verify=unchecked(), headers=TOKEN) as client:
        for _ in range(3):
            assert client.post("/command", content=b"b" * 2**21).text == "done"


class Crowd(threading.Thread):
    """A client that holds every connection slot of the controller and replaces each connection that ends."""

    def __init__(self, url: str, begin: Begin) -> None:
        super().__init__(daemon=True)
        self._url, self._begin = url, begin
        self._is_over = threading.Event()
        self.has_opened = threading.Semaphore(0)  # released once for each connection

    def run(self) -> None:
        with ExitStack() as stack:
            kept: list[socket.socket] = []
            while not self._is_over.is_set():
                kept = [one for one in kept if not is_closed(one)]
                if len(kept) >= controller_server._MOST_CONNECTIONS:
                    self._is_over.wait(0.05)
                    continue
                if one := opened(self._url, self._begin):
                    stack.enter_context(one)
                    one.setblocking(False)
                    kept.append(one)
                self.has_opened.release()

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def is_closed(one: socket.socket) -> bool:
    """Whether the other side closed it; received bytes are thrown away."""
    try:
        while one.recv(65536):
            continue
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        pass
    return True


@of_each_crowd
def test_a_client_that_holds_every_slot_does_not_lock_others_out(url: str, command: Command, begin: Begin) -> None:
    """It also replaces each closed connection. Others, each on a new connection, are still answered."""
    crowd = Crowd(url, begin)
    crowd.start()
    for _ in range(controller_server._MOST_CONNECTIONS):
        assert crowd.has_opened.acquire(timeout=60)
    for _ in range(20):
        assert ask(url) == "ok"
    command.may_end.set()
    assert command_answered(url) == "done"
    crowd.stop()


@of_both_schemes
def test_a_command_keeps_its_slot_until_it_is_answered(url: str, command: Command) -> None:
    """Many later connections do not push it out."""
    answered: list[str] = []
    asking = threading.Thread(target=lambda: answered.append(command_answered(url)))
    asking.start()
    assert command.has_begun.wait(60)
    with ExitStack() as stack:
        for _ in range(controller_server._MOST_CONNECTIONS + 20):
            stack.enter_context(socket.create_connection(("127.0.0.1", port_of(url))))
        assert ask(url) == "ok"
        command.may_end.set()
        asking.join()
    assert answered == ["done"]
