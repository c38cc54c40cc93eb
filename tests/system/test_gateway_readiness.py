"""When the gateway reports ready for versions without a readiness path of ours: a real Envoy and a small server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kanaria.stack.ports import free_port
from rollout.fleet import Backend, Readiness, Service, Version
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split
from tests.support.gateway_rig import Gateway, eventually
from tests.support.running_server import running_server

TAG = "flask:v1"


@dataclass
class App:
    """A server that answers every request with one status."""

    status: int
    port: int = 0


@contextmanager
def serving(app: App) -> Iterator[App]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(app.status)
            self.send_header("location", "/login")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        app.port = server.server_port
        yield app


@pytest.fixture
def gateway(tmp_path: Path, require_program: Callable[[str], str]) -> Iterator[Gateway]:
    require_program("envoy")
    with Gateway(GatewaySettings(tmp_path, port=free_port(), stats_port=free_port())) as running:
        yield running


def serve(gateway: Gateway, app: App, readiness: Readiness) -> None:
    service = Service((), 10.0, readiness=readiness)
    gateway.router.apply(Split(Version((Backend(TAG, "127.0.0.1", app.port),), service)))


def is_ready(gateway: Gateway) -> bool:
    answers = {gateway.client.get(path).status_code for path in ("/readyz", "/healthz")}
    assert all(status == 200 or status >= 500 for status in answers), answers
    return answers == {200}


@pytest.mark.parametrize("status", [200, 302, 404, 405])
def test_any_answer_below_500_is_ready_if_no_path_is_named(gateway: Gateway, status: int) -> None:
    """An application may have no page at `/`; a load balancer in front of the gateway must not take it for dead."""
    with serving(App(status)) as app:
        serve(gateway, app, Readiness("/", below=500))
        eventually(lambda: is_ready(gateway))
        app.status = 500
        eventually(lambda: not is_ready(gateway))


def test_a_version_is_ready_when_its_own_path_answers_200(gateway: Gateway) -> None:
    """A 400 of the Open Inference Protocol, or a 404 for a misspelt path, means not ready."""
    with serving(App(400)) as app:
        serve(gateway, app, Readiness("/v2/health/ready"))
        eventually(lambda: not is_ready(gateway))
        app.status = 200
        eventually(lambda: is_ready(gateway))
