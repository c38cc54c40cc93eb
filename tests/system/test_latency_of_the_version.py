"""How long a version took is not how long its client took, on a real Envoy: slow uploads, slow readers, hang-ups."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kanaria.stack.ports import free_port
from rollout.fleet import CONTRACT, Route, Service, Version
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split
from tests.support.gateway_rig import Gateway, StandIn, eventually

STABLE = "digits:v1"
SLOW_S = 1.5  # of the client
BOUND_MS = "1000"  # every answer of the version is quicker, on a busy machine, too
OWN = Service((Route("/predict"), Route("/words", is_streamed=True)), timeout_s=10)

Ask = Callable[["Gateway"], None]


@pytest.fixture(scope="module")
def stable() -> Iterator[StandIn]:
    with StandIn(STABLE) as stable:
        yield stable


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Iterator[Gateway]:
    require_program("envoy")
    folder: Path = tmp_path_factory.mktemp("gateway")
    with Gateway(GatewaySettings(folder, free_port(), free_port())) as running:
        yield running


def timed(gateway: Gateway) -> tuple[int, int]:
    """Requests whose time was measured, and those of them that were slower than the bound."""
    buckets = {"+Inf": 0.0, BOUND_MS: 0.0}
    for name, labels, value in gateway.samples():
        if name == "envoy_kanaria_predict_duration_ms_bucket" and labels["le"] in buckets:
            buckets[labels["le"]] += value
    return int(buckets["+Inf"]), int(buckets["+Inf"] - buckets[BOUND_MS])


def connected(gateway: Gateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.settings.port), timeout=60)


def head(path: str, length: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: a\r\n{length}\r\n\r\n".encode()


def slow_upload(gateway: Gateway, path: str = "/predict") -> None:
    with connected(gateway) as client:
        client.sendall(head(path, "content-length: 10"))
        time.sleep(SLOW_S)
        client.sendall(b"x" * 10)
        assert client.recv(100).startswith(b"HTTP/1.1 200")


def slow_large_upload(gateway: Gateway) -> None:
    """Of a body that flows through where the service is not ours."""
    with connected(gateway) as client:
        client.sendall(head("/predict", "content-length: 100000") + b"x" * 99_999)
        time.sleep(SLOW_S)
        client.sendall(b"x")
        assert client.recv(100).startswith(b"HTTP/1.1 200")


def slow_chunks(gateway: Gateway) -> None:
    with connected(gateway) as client:
        client.sendall(head("/predict", "transfer-encoding: chunked") + b"1\r\nx\r\n")
        time.sleep(SLOW_S)
        client.sendall(b"0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")


def slow_headers(gateway: Gateway) -> None:
    with connected(gateway) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nhost: a\r\n")
        time.sleep(SLOW_S)
        client.sendall(b"content-length: 0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")


def window_of_zero(gateway: Gateway, path: str = "/predict") -> None:
    """HTTP/2: a client that never allows a byte of the answer's body to be sent."""
    named = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "a"}
    fields = b"".join(b"\x00%c%b%c%b" % (len(k), k.encode(), len(v), v.encode()) for k, v in named.items())
    no_window = struct.pack(">HI", 4, 0)
    with connected(gateway) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, no_window) + frame(1, 5, 1, fields))
        time.sleep(SLOW_S)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def slow_upload_then_gone(gateway: Gateway) -> None:
    """The client leaves as soon as its request is there."""
    with connected(gateway) as client:
        client.sendall(head("/predict", "content-length: 10"))
        time.sleep(SLOW_S)
        client.sendall(b"x" * 10)
        time.sleep(0.05)


@pytest.mark.parametrize("service", [CONTRACT, OWN], ids=["of the contract", "of its own"])
@pytest.mark.parametrize(
    "ask", [slow_upload, slow_large_upload, slow_chunks, slow_headers, window_of_zero], ids=lambda ask: ask.__name__
)
def test_a_slow_client_makes_no_version_slow(running: Gateway, stable: StandIn, ask: Ask, service: Service) -> None:
    """Whichever half of the exchange it draws out."""
    stable.behave()
    running.router.apply(Split(Version((stable.backend,), service)))
    count, slow = timed(running)
    ask(running)
    eventually(lambda: timed(running)[0] == count + 1)
    assert timed(running)[1] == slow


@pytest.mark.parametrize("service", [CONTRACT, OWN], ids=["of the contract", "of its own"])
def test_a_client_that_leaves_counts_for_as_long_as_the_version_had_its_request(
    running: Gateway, stable: StandIn, service: Service
) -> None:
    """Not for the time in which it was sending it."""
    stable.behave(delay_s=6.0)
    running.router.apply(Split(Version((stable.backend,), service)))
    count, slow = timed(running)
    slow_upload_then_gone(running)
    eventually(lambda: timed(running)[0] == count + 1)
    assert timed(running)[1] == slow
    with connected(running) as client:
        client.sendall(head("/predict", "content-length: 0"))
        time.sleep(SLOW_S)
    eventually(lambda: timed(running) == (count + 2, slow + 1))


@pytest.mark.parametrize("ask", [slow_upload, window_of_zero], ids=lambda ask: ask.__name__)
def test_the_beginning_of_a_stream_waits_for_no_client(
    running: Gateway, stable: StandIn, ask: Callable[..., None]
) -> None:
    stable.behave()
    running.router.apply(Split(Version((stable.backend,), OWN)))
    count, slow = timed(running)
    ask(running, "/words")
    eventually(lambda: timed(running)[0] == count + 1)
    assert timed(running)[1] == slow


@pytest.mark.parametrize("service", [CONTRACT, OWN], ids=["of the contract", "of its own"])
def test_a_slow_version_is_slow(running: Gateway, stable: StandIn, service: Service) -> None:
    """Also for a client that is quick."""
    stable.behave(delay_s=SLOW_S)
    running.router.apply(Split(Version((stable.backend,), service)))
    count, slow = timed(running)
    assert running.predict().status_code == 200
    eventually(lambda: timed(running) == (count + 1, slow + 1))
