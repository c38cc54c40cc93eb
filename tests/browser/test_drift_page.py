"""The drift page in a real browser: our thresholds, and Evidently's pictures in an isolated frame."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from kanaria.stack.pages import pages
from monitoring.drift.column import Column
from monitoring.drift.compare import Period, Side, compared
from monitoring.drift.result import write_result
from monitoring.drift.rule import Rule
from monitoring.drift.truth import Answered
from tests.support.drift_pages import write_report
from tests.support.releases import digits_world
from tests.support.site import serving


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The address of the pages, with a report in which the ages rose by ten."""
    age, request, sides = np.random.default_rng(11).normal(40, 10, 300), np.arange(300), []
    for moved in (0.0, 10.0):
        columns = {"age": Column(age + moved, request), "label": Column(age / 10, request)}
        sides.append(Side(columns, Answered.of([], [], np.arange(0))))
    found = compared(
        "data",
        "digits:v1",
        "digits:v1",
        Period(1.79e9, 1.8e9),
        Rule(),
        reference=sides[0],
        current=sides[1],
        logged=(300, 300),
    )
    write_report(found, tmp_path / "data.html", tmp_path / "workspace")
    write_result(found.result, tmp_path / "data.json")
    world, controller = digits_world(tmp_path / "ledger.db")
    controller.close()
    with serving(world, more=tuple(pages(tmp_path))) as address:
        yield address


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_page() as page:
        yield page


def test_evidently_is_drawn_with_only_our_thresholds(url: str, page: Page) -> None:
    """No page states another limit for drift, and the frame cannot read this tab's storage."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(url)
    page.evaluate("sessionStorage.setItem('kanaria-token', 'secret')")
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(f"{url}/drift/data")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cut = page.evaluate(
            "[...document.querySelectorAll('td')].filter(e => e.getBoundingClientRect().right > innerWidth)"
        )
        assert cut == []
    own = page.locator("main").inner_text()
    assert "differs in 1 of 2 columns from the data that digits:v1 was tested on" in own
    (row,) = (row for row in page.get_by_role("row").all_inner_texts() if row.startswith("age"))
    assert "drift" in row
    assert "10\N{NO-BREAK SPACE}%" in row or "10 %" in row
    page.locator("iframe").scroll_into_view_if_needed()
    frame = page.frames[1]
    frame.wait_for_selector("svg")
    drawn = frame.locator("body").inner_text()
    assert "Dataset Drift" not in own + drawn
    assert "0.0001" not in own + drawn
    read = "() => { try { return sessionStorage.getItem('kanaria-token') } catch (error) { return error.name } }"
    assert frame.evaluate(read) == "SecurityError"
    assert said == []
