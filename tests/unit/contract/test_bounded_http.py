"""No request takes memory without end; real sockets."""

import threading
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from contract.bounded_http import LARGEST_FIELDS, bounded_http
from kanaria.stack.ports import free_port
from tests.support.endless import ENDLESS, MOST, taken
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("serve")


async def _size(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app, port = Starlette(routes=[Route("/x", _size, methods=["POST"])]), free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, http=bounded_http(), log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("endless", ENDLESS)
def test_a_request_without_end_ends_the_connection(url: str, endless: str) -> None:
    assert taken(url, endless) < MOST / 2
    assert httpx.post(f"{url}/x", content=b"body", trust_env=False).text == "4"


def test_bodies_have_no_bound(url: str) -> None:
    """Whole, in large chunks or in small ones, whose framing alone is more than what may lie between two."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        assert client.post("/x", content=b"b" * 3 * LARGEST_FIELDS).text == str(3 * LARGEST_FIELDS)
        assert client.post("/x", content=iter([b"b" * 2**18] * 20)).text == str(20 * 2**18)
        assert client.post("/x", content=iter([b"b"] * 250_000)).text == "250000"
