"""Clients for the stack's own services."""

import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from contract import loopback
from tests.support.running_server import running_server


class Page(BaseHTTPRequestHandler):
    """Answers /good with 200 and every other path with 503."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/good" else 503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), Page)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])
def test_no_proxy_is_used(name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain client would use the proxy in the environment, where nothing listens."""
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/good")
    assert loopback.answers(f"{url}/good", timeout_s=5)
    with loopback.client(url, timeout_s=5) as client:
        assert client.get("/good").status_code == 200


def test_an_unhealthy_or_missing_service_does_not_answer(url: str) -> None:
    """Neither case raises an error."""
    assert not loopback.answers(f"{url}/bad", timeout_s=5)
    assert not loopback.answers("http://127.0.0.1:9/good", timeout_s=5)


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("http://127.0.0.1:3000", True),
        ("http://127.8.0.1/grafana/", True),
        ("http://user:word@localhost:3000", True),
        ("http://grafana.localhost", True),
        ("http://[::1]:3000", True),
        ("https://grafana.example:3000", False),
        ("http://10.0.0.7", False),
        ("http://localhost.example", False),
    ],
)
def test_a_local_address_is_recognised(url: str, is_local: bool) -> None:
    """A Grafana may run on this machine or behind a proxy."""
    assert loopback.is_local(url) is is_local


def test_certificates_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them takes longer than most requests, and a controller has a dozen clients."""
    loopback.client(timeout_s=5).close()
    monkeypatch.delattr(ssl, "create_default_context")
    loopback.client(timeout_s=5).close()
    loopback.client(timeout_s=5, unix_socket=tmp_path / "socket").close()
