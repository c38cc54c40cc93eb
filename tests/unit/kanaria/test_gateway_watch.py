"""When the gateway counts as silent or full, and when it is restarted; tested with real sockets."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kanaria.stack.gateway_watch import GatewayWatch
from kanaria.stack.ports import free_port
from rollout.routers.router import GatewayHealth
from tests.support.waiting import eventually

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Clock:
    """A steady clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def listening(port: int, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """Pass every connection to `answer`, then close it."""
    with socket.create_server(("127.0.0.1", port)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def answers(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(ANSWER)


def hangs_up(_: socket.socket) -> None:
    return


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def restarts() -> list[float]:
    return []


@pytest.fixture
def watch(port: int, clock: Clock, restarts: list[float]) -> GatewayWatch:
    return GatewayWatch(f"http://127.0.0.1:{port}", restart=lambda: restarts.append(clock()), clock=clock)


def looked(watch: GatewayWatch, clock: Clock, *, until_s: float) -> None:
    """Let the watch look once every second."""
    while clock.now_s < until_s:
        clock.now_s += 1
        watch.look()


def test_a_gateway_that_answers_is_ready(watch: GatewayWatch, clock: Clock, port: int, restarts: list[float]) -> None:
    """The watch does not restart it and reports nothing."""
    with listening(port, answers):
        looked(watch, clock, until_s=40)
    assert (watch.health, watch.trouble, watch.unanswered_s, restarts) == (GatewayHealth.READY, None, 0, [])


def test_a_silent_gateway_is_restarted_less_and_less_often(
    watch: GatewayWatch, clock: Clock, restarts: list[float]
) -> None:
    """When nothing listens, it is restarted after 15 seconds. If that does not help, the next wait is twice as long."""
    looked(watch, clock, until_s=2)
    assert (watch.health, watch.trouble) == (GatewayHealth.SILENT, None)
    looked(watch, clock, until_s=120)
    assert restarts == [16, 46, 106]
    assert watch.trouble == "the gateway has not answered for 119 s; it is restarted in 106 s"


def test_a_gateway_that_answers_again_gets_the_full_wait_again(
    watch: GatewayWatch, clock: Clock, port: int, restarts: list[float]
) -> None:
    """The silence counts from its last answer."""
    looked(watch, clock, until_s=20)
    with listening(port, answers):
        looked(watch, clock, until_s=21)
    looked(watch, clock, until_s=36)
    assert restarts == [16]
    looked(watch, clock, until_s=37)
    assert restarts == [16, 37]


def test_a_gateway_that_hangs_is_silent(watch: GatewayWatch, port: int) -> None:
    """It accepts the connection and answers nothing."""
    with socket.create_server(("127.0.0.1", port)):
        watch.look()
    assert watch.health is GatewayHealth.SILENT


def test_a_gateway_that_closes_connections_without_being_full_is_silent(
    watch: GatewayWatch, clock: Clock, port: int, restarts: list[float]
) -> None:
    """It serves nobody, and a restart may help."""
    with listening(port, hangs_up):
        looked(watch, clock, until_s=20)
    assert (watch.health, restarts) == (GatewayHealth.SILENT, [16])
    assert "has not answered" in (watch.trouble or "")


def test_a_full_gateway_is_reported_but_not_restarted(clock: Clock, port: int, restarts: list[float]) -> None:
    """It closes new connections but serves others, which a restart would cut."""
    watch = GatewayWatch(
        f"http://127.0.0.1:{port}", restart=lambda: restarts.append(clock()), clock=clock, is_full=lambda: True
    )
    with listening(port, hangs_up):
        looked(watch, clock, until_s=60)
    assert (watch.health, restarts) == (GatewayHealth.FULL, [])
    assert "refused new clients for 59 s" in (watch.trouble or "")


def test_a_failed_restart_does_not_stop_the_watch(port: int) -> None:
    """The thread keeps looking."""
    tried = threading.Event()

    def fails() -> None:
        tried.set()
        raise OSError("no more processes")

    watch = GatewayWatch(f"http://127.0.0.1:{port}", restart=fails, clock=Clock(), restarted_after_s=0.0)
    watch.start()
    assert tried.wait(60)
    with listening(port, answers):
        eventually(lambda: watch.health is GatewayHealth.READY, within_s=60)
        assert watch.is_alive()
    watch.stop()
