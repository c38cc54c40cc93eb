"""A server that sleeps until a request comes: no clock wakes it, and it ends when it is asked to."""

import email.utils
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kanaria.stack.ports import free_port
from kanaria.stack.sleeping_server import SleepingServer
from tests.support.paths import ROOT
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("serve")

of_both_loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
WATCHED_S = 2.0
MOST_WAKES = 5  # in that time; a server that looks ten times a second has 20

PROGRAM = """
import asyncio, signal, sys, uvicorn
from kanaria.stack.sleeping_server import SleepingServer

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts in the background ignore it

async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"] == "/slow":
            print("asked", flush=True)
            await asyncio.sleep(0.5)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

SleepingServer(uvicorn.Config(app, port=int(sys.argv[1]), loop=sys.argv[2], lifespan="off", log_level="error")).run()
print("ended", flush=True)
"""


@contextmanager
def program(loop: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    port = free_port()
    command = [sys.executable, "-c", PROGRAM, str(port), loop]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: answers(url))
            yield process, url
        finally:
            process.kill()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="no other system counts how often a process was woken up")
@of_both_loops
def test_an_idle_server_is_never_woken(loop: str) -> None:
    """uvicorn's own server wakes up ten times a second."""
    with program(loop) as (process, _):
        before = wakes(process.pid)
        time.sleep(WATCHED_S)
        assert wakes(process.pid) - before < MOST_WAKES


def wakes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


@of_both_loops
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sleeping_server_ends_when_it_is_asked_to(loop: str, number: signal.Signals) -> None:
    """A signal wakes it and is raised again afterwards, as uvicorn does."""
    with program(loop) as (process, _):
        process.send_signal(number)
        assert process.wait(timeout=60) in (-number, 1)


@of_both_loops
def test_a_request_is_answered_before_its_server_ends(loop: str) -> None:
    """uvicorn's own server does the same."""
    with program(loop) as (process, url):
        found: list[str] = []
        client = threading.Thread(target=lambda: found.append(httpx.get(f"{url}/slow", timeout=30).text))
        client.start()
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        process.terminate()
        client.join()
        assert found == ["ok"]
        assert process.wait(timeout=60) == -signal.SIGTERM


@contextmanager
def running(config: uvicorn.Config) -> Iterator[SleepingServer]:
    server = SleepingServer(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield server
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def config(port: int, *, date_header: bool = True) -> uvicorn.Config:
    async def hello(_: Request) -> Response:
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route("/", hello)])
    return uvicorn.Config(app, port=port, date_header=date_header, log_level="error", headers=[("x-own", "yes")])


def test_another_thread_can_end_the_server() -> None:
    """Ending it twice has the same effect, also after it has ended."""
    with running(config(free_port())) as server:
        server.should_exit = True
    server.should_exit = True
    assert server.should_exit


def test_a_server_asked_to_end_before_its_start_ends_at_once() -> None:
    """It does not wait for a second request to end."""
    server = SleepingServer(config(free_port()))
    server.should_exit = True
    server.run()


def test_the_headers_of_an_answer_have_the_time_of_its_request() -> None:
    """The requests come seconds apart on one connection. The server's other headers are there too."""
    port = free_port()
    with running(config(port)), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        dates = []
        for _ in range(3):
            before_s = int(time.time())
            answer = client.get("/")
            dates.append(email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp())
            assert before_s <= dates[-1] <= time.time()
            assert (answer.headers["server"], answer.headers["x-own"]) == ("uvicorn", "yes")
            time.sleep(0.6)
    assert dates[-1] > dates[0]


def test_a_server_without_date_headers_sends_none() -> None:
    """The configuration says so."""
    port = free_port()
    with running(config(port, date_header=False)):
        assert "date" not in httpx.get(f"http://127.0.0.1:{port}").headers
