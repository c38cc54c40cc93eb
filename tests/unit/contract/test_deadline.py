"""A time limit holds for a whole answer, even from a real server that sends one byte now and then."""

import socket
from collections.abc import Iterator
from contextvars import copy_context
from threading import Thread
from typing import Any, Literal

import httpcore
import httpx
import pytest

from contract import loopback
from contract.deadline import ended_within, left_s, own_deadline, within
from contract.network import Network
from tests.support.dribbling import Dribbling, dribbling
from tests.support.thread_limit import no_more_threads

LIMIT_S = 0.4


@pytest.fixture(params=["head", "body"])
def server(request: pytest.FixtureRequest) -> Iterator[Dribbling]:
    part: Literal["head", "body"] = request.param
    with dribbling(part, lambda asked: b"good" if "/good" in asked else None) as running:
        yield running


def test_an_answer_that_comes_byte_by_byte_times_out(server: Dribbling) -> None:
    """httpx restarts its own limit with every byte. The next request uses a new connection."""
    with loopback.client(server.url, timeout_s=LIMIT_S) as client:
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout):
                client.get("/")
            assert client.get("/good").text == "good"


def test_a_streamed_answer_has_the_same_time_limit() -> None:
    """The head arrives at once and the body does not."""
    with (
        dribbling("body") as server,
        loopback.client(server.url, timeout_s=LIMIT_S) as client,
        client.stream("GET", "/") as answer,
        pytest.raises(httpx.ReadTimeout),
    ):
        list(answer.iter_raw())


def test_the_limit_of_one_request_replaces_that_of_the_client(server: Dribbling) -> None:
    """The client allows 60 s and the request less: the request times out."""
    with loopback.client(server.url, timeout_s=60) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/", timeout=LIMIT_S)


def test_requests_share_a_deadline_across_threads(server: Dribbling) -> None:
    """A thread that has the context shares the deadline. When it has passed, no further request is sent."""
    with loopback.client(server.url, timeout_s=60) as client:

        def asked() -> None:
            with pytest.raises(httpx.ReadTimeout):
                client.get("/")
            ended.append(True)

        ended: list[bool] = []
        with within(LIMIT_S):
            assert client.get("/good").text == "good"
            thread = Thread(target=copy_context().run, args=(asked,))
            thread.start()
            thread.join()
            assert ended
            for _ in range(2):
                with pytest.raises(httpx.TimeoutException):
                    client.get("/good")
        assert client.get("/good").text == "good"


def test_an_inner_deadline_never_extends_the_outer_one() -> None:
    """Only `own_deadline` does, for work that must be done in any case."""
    assert left_s(7.0) == 7.0
    with within(5.0):
        with within(100.0):
            assert 0.0 < left_s() <= 5.0
        with within(-1.0):
            assert left_s() == 0.0
            with own_deadline(3.0):
                assert 2.0 < left_s() <= 3.0
    assert left_s() == float("inf")


def test_a_host_name_is_resolved() -> None:
    """Any address of the name may be the one that listens. An unknown name is a connection error."""
    with dribbling(at_once=lambda _: b"good") as server:
        with loopback.client(f"http://localhost:{server.server_port}", timeout_s=5) as client:
            assert client.get("/").text == "good"
        with loopback.client("http://nobody.invalid", timeout_s=5) as client:
            with pytest.raises((httpx.ConnectError, httpx.ConnectTimeout)):
                client.get("/")
            with within(0.0), pytest.raises(httpx.ConnectTimeout):
                client.get("/")


def test_a_look_up_that_got_no_thread_is_tried_again() -> None:
    """The name stayed unresolved for the life of the process, and the error was not one that callers expect."""
    with (
        dribbling(at_once=lambda _: b"good") as server,
        loopback.client(f"http://localhost:{server.server_port}", timeout_s=5) as client,
    ):
        for _ in range(2):
            with no_more_threads(), pytest.raises(httpx.ConnectError, match="can't start new thread"):
                client.get("/")
            assert client.get("/").text == "good"


@pytest.mark.parametrize("fault", [MemoryError(), ValueError("odd"), KeyError("odd")])
def test_a_look_up_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """The caller that waits gets the error of the first look-up; the next call succeeds."""
    find = socket.getaddrinfo

    def fails_once(*asked: Any, **how: Any) -> Any:
        monkeypatch.setattr(socket, "getaddrinfo", find)
        raise fault

    network = Network()
    with dribbling() as server:
        monkeypatch.setattr(socket, "getaddrinfo", fails_once)
        with pytest.raises(type(fault)):
            network.connect_tcp("localhost", server.server_port, 5.0)
        network.connect_tcp("localhost", server.server_port, 5.0).close()


def test_a_link_local_address_keeps_its_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link-local IPv6 address is useless without its interface. The test resolves another name to a real one."""
    find, asked_for = socket.getaddrinfo, []

    def found(host: str, *asked: Any, **how: Any) -> Any:
        return find("fe80::1%lo" if host == "router" else host, *asked, **how)

    def connect(_: object, host: str, *__: object) -> Any:
        asked_for.append(host)
        raise httpcore.ConnectError

    monkeypatch.setattr(socket, "getaddrinfo", found)
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    for host in ("router", "::1", "127.0.0.1"):
        with pytest.raises(httpcore.ConnectError):
            Network().connect_tcp(host, 80, 5.0)
    assert asked_for == [f"fe80::1%{socket.if_nametoindex('lo')}", "::1", "127.0.0.1"]


def test_work_that_gets_no_thread_raises_an_os_error() -> None:
    """Timeouts are OS errors too: callers already handle those."""
    with no_more_threads(), pytest.raises(OSError, match="can't start new thread"):
        ended_within(5.0, lambda: 1)
    assert ended_within(5.0, lambda: 1) == 1
