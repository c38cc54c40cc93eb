"""Whoever holds connections of the controller and asks nothing takes no files from it; real sockets."""

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
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from contract.loopback import answers
from kanaria.settings import Settings
from kanaria.stack import controller_server
from kanaria.stack.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("serve")

SENT = {
    "silent": b"",
    "slow headers": b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ",
    "answered once": b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
}


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A controller's server; a second is a tenth of one."""
    for name in ("_FIRST_REQUEST_S", "_OLDEST_S", "_GRACE_S"):
        monkeypatch.setattr(controller_server, name, getattr(controller_server, name) / 10)
    settings = Settings(home=tmp_path, controller_port=free_port())
    app = Starlette(routes=[Route("/livez", lambda _: PlainTextResponse("ok"))])
    server = uvicorn.Server(controller_server.served(app, settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    yield settings.controller_url
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
