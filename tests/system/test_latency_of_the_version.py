"""The latency of a version excludes the time of slow clients. A real Envoy measures it.

The clients upload slowly, read slowly or disconnect early.
"""

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
SLOW_S = 1.5  # how long a slow client or version waits
BOUND_MS = "1000"  # a version without a delay always answers faster, even on a busy machine
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
    """The number of measured requests, and how many of them were slower than the bound."""
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
    """Upload a body so large that Envoy streams it to a version of your own service."""
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
    """An HTTP/2 client whose flow-control window stays 0, so that it never receives the answer's body."""
    named = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "a"}
    fields = b"".join(b"\x00%c%b%c%b" % (len(k), k.encode(), len(v), v.encode()) for k, v in named.items())
    no_window = struct.pack(">HI", 4, 0)
    with connected(gateway) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, no_window) + frame(1, 5, 1, fields))
        time.sleep(SLOW_S)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def slow_upload_then_disconnect(gateway: Gateway) -> None:
    """Upload slowly, and disconnect as soon as the request is complete."""
    with connected(gateway) as client:
        client.sendall(head("/predict", "content-length: 10"))
        time.sleep(SLOW_S)
        client.sendall(b"x" * 10)
        time.sleep(0.05)


@pytest.mark.parametrize("service", [CONTRACT, OWN], ids=["contract", "own service"])
@pytest.mark.parametrize(
    "ask", [slow_upload, slow_large_upload, slow_chunks, slow_headers, window_of_zero], ids=lambda ask: ask.__name__
)
def test_slow_clients_do_not_make_the_version_slow(
    running: Gateway, stable: StandIn, ask: Ask, service: Service
) -> None:
    """This holds for a slow upload and for a slow download."""
    stable.behave()
    running.router.apply(Split(Version((stable.backend,), service)))
    count, slow = timed(running)
    ask(running)
    eventually(lambda: timed(running)[0] == count + 1)
    assert timed(running)[1] == slow


@pytest.mark.parametrize("service", [CONTRACT, OWN], ids=["contract", "own service"])
def test_a_disconnected_client_counts_only_the_time_of_the_version(
    running: Gateway, stable: StandIn, service: Service
) -> None:
    """The time of the upload is not counted; the time after the whole request was sent is."""
    stable.behave(delay_s=6.0)
    running.router.apply(Split(Version((stable.backend,), service)))
    count, slow = timed(running)
    slow_upload_then_disconnect(running)
    eventually(lambda: timed(running)[0] == count + 1)
    assert timed(running)[1] == slow
    with connected(running) as client:
        client.sendall(head("/predict", "content-length: 0"))
        time.sleep(SLOW_S)
    eventually(lambda: timed(running) == (count + 2, slow + 1))


@pytest.mark.parametrize("ask", [slow_upload, window_of_zero], ids=lambda ask: ask.__name__)
def test_the_measured_start_of_a_stream_excludes_the_time_of_the_client(
    running: Gateway, stable: StandIn, ask: Callable[..., None]
) -> None:
    stable.behave()
    running.router.apply(Split(Version((stable.backend,), OWN)))
    count, slow = timed(running)
    ask(running, "/words")
    eventually(lambda: timed(running)[0] == count + 1)
    assert timed(running)[1] == slow


@pytest.mark.parametrize("service", [CONTRACT, OWN], ids=["contract", "own service"])
def test_a_slow_version_is_slow(running: Gateway, stable: StandIn, service: Service) -> None:
    """A fast client is measured as slow if the version is slow."""
    stable.behave(delay_s=SLOW_S)
    running.router.apply(Split(Version((stable.backend,), service)))
    count, slow = timed(running)
    assert running.predict().status_code == 200
    eventually(lambda: timed(running) == (count + 1, slow + 1))
