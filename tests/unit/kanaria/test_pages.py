"""The pages that boards link to."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from kanaria.stack.pages import pages
from monitoring.drift.result import ColumnDrift, DriftResult, State, write_result
from rollout.ui.runbooks import RUNBOOKS

Get = Callable[[str], httpx.Response]


@pytest.fixture
def get(tmp_path: Path) -> Get:
    app = Starlette(routes=pages(tmp_path))

    async def ask(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://controller") as client:
            return await client.get(path)

    return lambda path: asyncio.run(ask(path))


def test_every_runbook_section_has_its_anchor(get: Get) -> None:
    """A link with an alert's name in lower case leads to the advice for that alert."""
    page = get("/runbooks")
    names = [line[3:] for line in RUNBOOKS.read_text().splitlines() if line.startswith("## ")]
    assert page.headers["content-type"].startswith("text/html")
    assert names
    assert all(f'id="{name.lower()}"' in page.text for name in names)
    assert "href=" not in page.text.partition("<main")[2], "the page links to repository files, which are not served"


RESULT = DriftResult(
    kind="data",
    version="digits:v1",
    against="digits:v1",
    state=State.DRIFT,
    at_s=1.8e9,
    since_s=1.8e9 - 3600,
    until_s=1.8e9,
    logged_requests=900,
    logged_rows=900,
    rows=900,
    reference_rows=400,
    labelled_rows=0,
    min_rows=100,
    min_requests=50,
    alpha=0.001,
    columns=(
        ColumnDrift(
            column="age", score=0.31, threshold=0.1, p_value=1e-9, direction="up", says="rose <b>", has_drifted=True
        ),
        ColumnDrift(
            column="ink", score=0.02, threshold=0.15, p_value=0.4, direction="shape", says="changed", has_drifted=False
        ),
    ),
)


def test_the_newest_drift_report_is_shown_with_our_thresholds(get: Get, tmp_path: Path) -> None:
    """The result and the threshold of each column come first.

    Evidently's page follows in a sandbox without an origin.
    """
    write_result(RESULT, tmp_path / "data.json")
    (tmp_path / "data.html").write_text("<p>moved")
    page = get("/drift/data")
    assert "digits:v1 differs in 1 of 2 columns from the data that digits:v1 was tested on" in page.text
    assert re.findall(r"<td class=.number.[^>]*>([^<]+)<", page.text) == ["31 %", "10 %", "2 %", "15 %"]
    assert "rose &lt;b&gt;" in page.text
    assert 'src="/drift/data.html" sandbox="allow-scripts"' in page.text
    drawn = get("/drift/data.html")
    assert drawn.text == "<p>moved", "a page does not link to another page by its file name"
    assert drawn.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")


def test_a_report_on_too_few_rows_has_a_page_without_pictures(get: Get, tmp_path: Path) -> None:
    """It says so and links to nothing that is missing."""
    few = RESULT.model_copy(update={"state": State.TOO_FEW_ROWS, "columns": ()})
    write_result(few, tmp_path / "data.json")
    page = get("/drift/data").text
    assert "Too few rows to tell" in page
    assert "iframe" not in page


@pytest.mark.parametrize(
    "path",
    ["/drift/data", "/drift/data.html", "/drift/..%2Fledger.html", "/drift/..%2Fledger", "/drift/%2Fetc%2Fpasswd"],
)
def test_without_a_report_the_page_says_what_to_do(get: Get, tmp_path: Path, path: str) -> None:
    """No path leads out of the folder."""
    (tmp_path.parent / "ledger.html").write_text("secret")
    answer = get(path)
    assert answer.status_code == 404
    assert "secret" not in answer.text
