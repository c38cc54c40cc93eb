"""Other users of this machine can only read the metrics of a real Envoy, and not use its admin interface."""

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from contract.loopback import answers
from kanaria.stack.ports import free_port
from rollout.fleet import Backend, Version
from rollout.routers.envoy import admin
from rollout.routers.envoy.bootstrap import envoy_command, write_bootstrap
from rollout.routers.envoy.metrics import EnvoyMetrics
from rollout.routers.envoy.router import EnvoyRouter
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import ObservedSplit, Split
from rollout.sources.scrape import ScrapeSource
from tests.support.gateway_rig import Gateway
from tests.support.waiting import eventually

ORDERS = (
    "logging?level=debug",
    "drain_listeners",
    "quitquitquit",
    "healthcheck/fail",
    "runtime_modify?a=1",
    "reset_counters",
)
SECRETS = ("config_dump", "clusters?format=json", "listeners", "server_info", "stats", "stats/prometheus/", "", "help")


@pytest.fixture
def settings(tmp_path: Path, require_program: Callable[[str], str]) -> GatewaySettings:
    require_program("envoy")
    return GatewaySettings(directory=tmp_path, port=free_port(), stats_port=free_port())


@pytest.fixture
def gateway(settings: GatewaySettings) -> Iterator[Gateway]:
    with Gateway(settings) as running:
        yield running


def test_no_local_user_reaches_the_admin_through_a_port(gateway: Gateway) -> None:
    """A local port passes only the metrics of the admin interface: no commands, and nothing that shows a key."""
    url = f"http://{gateway.settings.stats_address}"
    with httpx.Client(base_url=url) as local:
        assert {local.post(f"/{path}").status_code for path in ORDERS} == {404}
        assert {local.get(f"/{path}").status_code for path in (*ORDERS, *SECRETS)} == {404}
        for disguised in (
            "/stats/prometheus/../../quitquitquit",
            "//quitquitquit",
            "/stats%2fprometheus",
            "/stats/prometheus%00",
        ):
            answer = local.send(httpx.Request("POST", f"{url}{disguised}"))
            assert answer.status_code in (400, 404), disguised
        assert local.post("/stats/prometheus").status_code == 404
        assert local.get("/stats/prometheus").text.startswith("# TYPE")
    gateway.client.get("/livez").raise_for_status()


def test_only_the_owner_can_open_the_admin(gateway: Gateway) -> None:
    """The admin's socket and its folder are accessible only to their owner."""
    socket = gateway.settings.admin_socket
    assert (socket.stat().st_mode & 0o777, socket.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_headers_of_envoy_change_nothing_at_the_metrics(gateway: Gateway) -> None:
    """A client that reads the metrics cannot make Envoy keep new counters with a header."""
    with httpx.Client(base_url=f"http://{gateway.settings.stats_address}") as local:
        local.get("/stats/prometheus", headers={"x-envoy-upstream-alt-stat-name": "mine"}).raise_for_status()
        assert "mine" not in local.get("/stats/prometheus").text


def test_statistics_of_the_admin_interface_are_not_collected(gateway: Gateway) -> None:
    """Two in five of all statistics were about the admin and the metrics page. The gateway's own are still there."""
    with httpx.Client(base_url=f"http://{gateway.settings.stats_address}") as local:
        local.get("/stats/prometheus").raise_for_status()
    with admin.client(gateway.settings, timeout_s=30.0) as asked:
        names = {line.partition(": ")[0] for line in asked.get("/stats").text.splitlines()}
    own = ("cluster.admin.", "http.admin.", "http.stats.", "listener.admin.")
    assert [name for name in names if name.startswith(own)] == []
    address = f"listener.127.0.0.1_{gateway.settings.port}"
    there = {"http.gateway.downstream_cx_active", "cluster_manager.warming_clusters", f"{address}.downstream_cx_total"}
    assert there <= names


def test_readers_of_the_metrics_use_no_slot_of_a_client(settings: GatewaySettings) -> None:
    """Connections to the metrics page have their own limit; the gateway's clients keep theirs."""
    with ExitStack() as stack:
        gateway = stack.enter_context(Gateway(replace(settings, max_connections=2)))
        for _ in range(64):
            stack.enter_context(socket.create_connection(("127.0.0.1", settings.stats_port)))
        gateway.client.get("/livez").raise_for_status()


def test_a_deep_state_folder_also_has_an_admin_socket(tmp_path: Path) -> None:
    """If its path is too long for a socket, the socket is in another folder of the owner, also after a restart."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    with Gateway(GatewaySettings(deep, port=free_port(), stats_port=free_port())) as gateway:
        shutil.rmtree(gateway.settings.admin_folder.resolve())
        gateway.kill()
        gateway.start()
        folder = gateway.settings.admin_folder.resolve()
        assert folder.stat().st_mode & 0o777 == 0o700
        shutil.rmtree(folder)


def test_a_gateway_of_an_earlier_version_is_controlled_until_it_is_restarted(settings: GatewaySettings) -> None:
    """An upgrade does not restart the gateway: the new controller also controls one whose admin has a port."""
    earlier = replace(settings, has_open_admin=True)
    bootstrap = json.loads(write_bootstrap(settings).read_text())
    bootstrap["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": settings.stats_port}}}
    bootstrap["static_resources"]["listeners"].pop()
    settings.bootstrap_path.write_text(json.dumps(bootstrap))
    process = subprocess.Popen(envoy_command(settings), stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: answers(f"http://127.0.0.1:{settings.port}/livez", timeout_s=5.0))
        router = EnvoyRouter(earlier)
        router.apply(Split(Version((Backend("digits:v1", "127.0.0.1", free_port()),))))
        assert router.observed() == ObservedSplit("digits:v1", None, 0, False)
        with ScrapeSource(EnvoyMetrics.of(earlier)) as source:
            source.read(())
    finally:
        process.terminate()
        process.wait()
