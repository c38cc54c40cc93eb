"""How the gateway distinguishes the routes of a service."""

import re
from pathlib import Path
from typing import Any

import pytest

from rollout.fleet import Backend, Route, Service, Version
from rollout.routers.envoy.routes import routes_for
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split

SETTINGS = GatewaySettings(Path("gateway"))


def entries(*versions: Service) -> list[dict[str, Any]]:
    """The gateway's route table of a split between versions with these services."""
    split = Split(*(Version((Backend(f"m:v{at}", "127.0.0.1", at),), each) for at, each in enumerate(versions, 1)))
    found: list[dict[str, Any]] = routes_for(split, SETTINGS)["virtual_hosts"][0]["routes"]
    return found


def counted_as(path: str, *routes: str) -> str | None:
    """The route under which a request is counted."""
    for entry in entries(Service(tuple(map(Route, routes)), 60)):
        match = entry["match"]
        is_of_it = path == match.get("path") or re.fullmatch(match.get("safe_regex", {}).get("regex", "(?!)"), path)
        if is_of_it and "metadata" in entry:
            name: str = entry["metadata"]["filter_metadata"]["kanaria"]["route"]
            return name
    return None


@pytest.mark.parametrize(
    ("route", "path"),
    [
        ("/größe", "/gr%C3%B6%C3%9Fe"),
        ("/with space", "/with%20space"),
        ("/v1.2/do.it", "/v1.2/do.it"),
        ("/a(b)+c", "/a(b)+c"),
        ("/größe/{id}/€", "/gr%C3%B6%C3%9Fe/7/%E2%82%AC"),
        ("/v1.2/{id}", "/v1.2/7"),
        ("/gr%C3%B6%C3%9Fe", "/gr%C3%B6%C3%9Fe"),  # listed in escaped form
        ("/@me,x;y=1:2", "/@me,x;y=1:2"),
        ("/", "/"),
    ],
)
def test_a_route_matches_its_path_as_clients_send_it(route: str, path: str) -> None:
    """Paths beyond ASCII are escaped. Such a route was counted under all others, and never copied."""
    assert counted_as(path, route) == route


def test_a_dot_in_a_route_matches_only_a_dot() -> None:
    assert counted_as("/v1x2/7", "/v1.2/{id}") is None


def test_metrics_of_a_version_are_never_passed_on() -> None:
    """A service with a prefix has them behind it; for one without metrics only the usual path is blocked."""
    kept_back = [
        entry["match"]["path_separated_prefix"]
        for entry in entries(Service((), 60, metrics_path="/v1/metrics"), Service((), 60, metrics_path=""))
        if "path_separated_prefix" in entry["match"]
    ]
    assert kept_back == ["/metrics", "/v1/metrics"]
    assert Service((), 60, metrics_path="").kept_back == ("/metrics",)
    assert Service((), 60, metrics_path="/v1/metrics").kept_back == ("/metrics", "/v1/metrics")
