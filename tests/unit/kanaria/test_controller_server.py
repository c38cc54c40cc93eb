"""Whoever holds connections of the controller and asks nothing takes no files from it; real sockets."""

import asyncio
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from contract.loopback import answers
from kanaria.settings import Settings
from kanaria.stack import controller_server
from kanaria.stack.ports import free_port
from rollout.ui.admission import Admission
from rollout.ui.callers import Callers
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("serve")

SENT = {
    "silent": b"",
    "slow headers": b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ",
    "answered once": b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
}


TOKEN = {"authorization": "Bearer the-token"}


class Command:
    """An endpoint that answers once it is told to."""

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
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Iterator[str]:
    """A controller's server; a second is a tenth of one."""
    for name in ("_FIRST_REQUEST_S", "_OLDEST_S", "_GRACE_S"):
        monkeypatch.setattr(controller_server, name, getattr(controller_server, name) / 10)
    settings = Settings(home=tmp_path, controller_port=free_port())
    guarded = Admission(Callers("the-token", tuple), None).for_people(command)
    routes = [Route("/livez", lambda _: PlainTextResponse("ok")), Route("/command", guarded, methods=["POST"])]
    app = Starlette(routes=routes)
    server = uvicorn.Server(controller_server.served(app, settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    yield settings.controller_url
    command.may_end.set()
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
def test_connections_that_ask_nothing_are_few_and_closed(url: str, sent: bytes) -> None:
    """Of 600 at most 256 are kept, and those until a request should have come; then others are served again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    port = httpx.URL(url).port
    assert port is not None

    def kept() -> int:
        found = psutil.Process().net_connections(kind="tcp")
        return sum(one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED for one in found)

    with ExitStack() as stack:
        for _ in range(600):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            try:
                one.sendall(sent)
            except ConnectionError:
                continue
        eventually(lambda: kept() <= controller_server._MOST_CONNECTIONS)
        eventually(lambda: answers(f"{url}/livez", timeout_s=5), within_s=20)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_client_that_goes_on_asking_is_served(url: str) -> None:
    """On one connection after the other."""
    with httpx.Client(base_url=url, trust_env=False) as client:
        for _ in range(50):
            assert client.get("/livez").text == "ok"


class Crowd(threading.Thread):
    """Somebody who has a connection to the controller for each of its places, and opens another for each that ends."""

    def __init__(self, url: str, sent: bytes) -> None:
        super().__init__(daemon=True)
        self._port, self._sent = httpx.URL(url).port, sent
        self._is_over = threading.Event()
        self.has_opened = threading.Semaphore(0)  # once for each connection

    def run(self) -> None:
        with ExitStack() as stack:
            kept: list[socket.socket] = []
            while not self._is_over.is_set():
                kept = [one for one in kept if not is_closed(one)]
                if len(kept) >= controller_server._MOST_CONNECTIONS:
                    self._is_over.wait(0.05)
                    continue
                one = stack.enter_context(socket.create_connection(("127.0.0.1", self._port)))
                one.sendall(self._sent)
                one.setblocking(False)
                kept.append(one)
                self.has_opened.release()

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def is_closed(one: socket.socket) -> bool:
    """Whether the other side ended it; what it sent is thrown away."""
    try:
        while one.recv(65536):
            continue
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
def test_whoever_holds_all_places_keeps_nobody_out(url: str, command: Command, sent: bytes) -> None:
    """And opens each anew that ends: others are answered all the while, each on a new connection."""
    crowd = Crowd(url, sent)
    crowd.start()
    for _ in range(controller_server._MOST_CONNECTIONS):
        assert crowd.has_opened.acquire(timeout=20)
    for _ in range(20):
        assert httpx.get(f"{url}/livez", trust_env=False).text == "ok"
    command.may_end.set()
    assert httpx.post(f"{url}/command", headers=TOKEN, trust_env=False).text == "done"
    crowd.stop()


def test_a_command_keeps_its_place_until_it_is_answered(url: str, command: Command) -> None:
    """However many connections come after it."""
    answered: list[str] = []

    def ask() -> None:
        answered.append(httpx.post(f"{url}/command", headers=TOKEN, trust_env=False, timeout=60).text)

    asking = threading.Thread(target=ask)
    asking.start()
    assert command.has_begun.wait(20)
    port = httpx.URL(url).port
    with ExitStack() as stack:
        for _ in range(controller_server._MOST_CONNECTIONS + 20):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert answers(f"{url}/livez", timeout_s=20)
        command.may_end.set()
        asking.join()
    assert answered == ["done"]
