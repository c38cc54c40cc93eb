"""Other sites cannot read the controller: not by a host name that points to it, in a frame or by a script."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from rollout.ui.guarding import OWN_FILES, Guarding


async def own(_: Request) -> Response:
    return PlainTextResponse("the status")


async def of_its_own(_: Request) -> Response:
    return PlainTextResponse("a report", headers={"content-security-policy": "default-src 'none'"})


APP = Starlette(
    routes=[Route("/", own, methods=["GET", "POST"]), Route("/report", of_its_own)],
    middleware=[Middleware(Guarding, names={"Kanaria.example.com"})],
)


def ask(host: str, path: str = "/", method: str = "GET") -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://127.0.0.1") as client:
            return await client.request(method, path, headers={"host": host})

    return asyncio.run(send())


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8090",
        "localhost:8090",
        "LOCALHOST",
        "[::1]:8090",
        "10.0.0.7",
        "my.localhost",
        "kanaria.example.com:443",
    ],
)
def test_it_answers_under_its_own_names(host: str) -> None:
    """These are addresses, localhost, and the address of the page given to people."""
    assert ask(host).text == "the status"


@pytest.mark.parametrize(
    "host", ["evil.example.com", "evil.example.com:8090", "127.0.0.1.evil.com", "localhost.evil.com"]
)
def test_an_unknown_host_name_is_refused(host: str) -> None:
    """DNS rebinding uses such a name."""
    answer = ask(host)
    assert answer.status_code == 421
    assert "the status" not in answer.text
    assert "KANARIA_PAGE_URL" in answer.json()["do"]
    assert answer.headers["content-security-policy"] == OWN_FILES


def test_a_command_needs_its_token_under_any_host_name() -> None:
    """Alertmanager may use its own name for the controller."""
    assert ask("controller.internal", method="POST").status_code == 200


def test_every_answer_restricts_scripts_and_frames() -> None:
    """Only scripts from our files, no frames on other sites, no guessing of types; a page may set its own rules."""
    headers = ask("127.0.0.1").headers
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert ask("127.0.0.1", "/report").headers["content-security-policy"] == "default-src 'none'"
