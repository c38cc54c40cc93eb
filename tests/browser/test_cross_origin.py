"""Calls from another site's page to the gateway, in a real browser."""

import functools
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from kanaria.stack.ports import free_port
from rollout.routers.envoy.settings import ApiKey, GatewaySettings
from rollout.routers.router import Split
from tests.support.gateway_rig import Gateway, StandIn
from tests.support.running_server import running_server

KEY = "the-key"
CALL = """async ([url, key]) => {
    try {
        const answer = await fetch(url, {
            method: "POST",
            headers: {"content-type": "application/json", "x-api-key": key, "x-request-id": "page-1"},
            body: JSON.stringify({features: [[0]]}),
        });
        return {status: answer.status, id: answer.headers.get("x-request-id"), body: await answer.json()};
    } catch (error) {
        return {refused: String(error)};
    }
}"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The origin of a site with one empty page."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("<!doctype html><title>A shop</title>")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path / "site")
    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}"


def test_only_pages_of_allowed_origins_may_call(
    tmp_path: Path, site: str, browser: Browser, require_program: Callable[[str], str]
) -> None:
    """They can read answers, refusals and request ids; by default no other site's page can read anything."""
    require_program("envoy")
    tries = {
        "named": ((site,), KEY),
        "wrong key": ((site,), "x"),
        "another": (("https://a.b",), KEY),
        "none": ((), KEY),
    }
    seen: dict[str, dict[str, Any]] = {}
    with StandIn("digits:v1") as stable:
        for name, (origins, key) in tries.items():
            settings = GatewaySettings(
                tmp_path / name, free_port(), free_port(), api_keys=(ApiKey(KEY),), cors_origins=tuple(origins)
            )
            with Gateway(settings) as gateway:
                gateway.router.apply(Split(stable.version))
                page = browser.new_page()
                page.goto(site)
                seen[name] = page.evaluate(CALL, [f"{gateway.url}/predict", key])
                page.close()
    assert (seen["named"]["status"], seen["named"]["id"], seen["named"]["body"]["version"]) == (
        200,
        "page-1",
        "digits:v1",
    )
    assert (seen["wrong key"]["status"], seen["wrong key"]["body"]["status"]) == (401, 401)
    assert "Failed to fetch" in seen["another"]["refused"]
    assert "Failed to fetch" in seen["none"]["refused"]
