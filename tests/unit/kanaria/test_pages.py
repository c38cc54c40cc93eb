"""The pages that boards link to."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from kanaria.stack.pages import RUNBOOKS, pages

Get = Callable[[str], httpx.Response]


@pytest.fixture
def get(tmp_path: Path) -> Get:
    app = Starlette(routes=pages(tmp_path))

    async def ask(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://controller") as client:
            return await client.get(path)

    return lambda path: asyncio.run(ask(path))


def test_every_runbook_has_its_anchor(get: Get) -> None:
    """A link with an alert's name in lower case leads to what to do about it."""
    page = get("/runbooks")
    names = [line[3:] for line in RUNBOOKS.read_text().splitlines() if line.startswith("## ")]
    assert page.headers["content-type"].startswith("text/html")
    assert names
    assert all(f'id="{name.lower()}"' in page.text for name in names)
    assert "href=" not in page.text, "files of the repository are not served"


def test_the_newest_drift_report_is_shown(get: Get, tmp_path: Path) -> None:
    """As it was written."""
    (tmp_path / "data.html").write_text("<p>moved")
    assert get("/drift/data").text == "<p>moved"
    assert get("/drift/data.html").text == "<p>moved", "pages link to each other by the names of their files"


@pytest.mark.parametrize("path", ["/drift/data", "/drift/..%2Fledger", "/drift/%2Fetc%2Fpasswd"])
def test_without_a_report_there_is_none(get: Get, tmp_path: Path, path: str) -> None:
    """What to do is said; and no path leads out of the folder."""
    (tmp_path.parent / "ledger.html").write_text("secret")
    answer = get(path)
    assert answer.status_code == 404
    assert "secret" not in answer.text
