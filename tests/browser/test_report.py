"""The report in a real browser: pictures are drawn, nothing is fetched, and nothing overflows."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from rollout.ui.report import Section, render_report
from tests.support.releases import NO_SEVENS, finished

PICTURES = ("weight", "evidence", "errors", "latency", "class", "wrong_label", "disagreement")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A promoted and a rolled back release, and the results of a load test."""
    folder = tmp_path_factory.mktemp("report")
    good = finished(folder / "good.db")
    bad = replace(finished(folder / "bad.db", classes=NO_SEVENS), number=2)
    clients = Section(
        "What users saw", ("12,000 requests, `none` failed.",), ("endpoint", "p95"), (("/predict", "21 ms"),)
    )
    path = folder / "report.html"
    path.write_text(render_report([good, bad], title="Two releases", extra=[clients]))
    return path


class Visit:
    """One opened report and everything that went wrong in it."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.requested: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text))
        page.goto(path.as_uri())
        page.wait_for_selector("#release-2-wrong_label .main-svg")  # the last picture


@pytest.fixture
def visit(browser: Browser, report: Path) -> Iterator[Visit]:
    page = browser.new_page()
    yield Visit(page, report)
    page.close()


def test_every_picture_of_every_release_is_drawn(visit: Visit) -> None:
    """They contain marks, not only axes."""
    marks = {
        f"release-{number}-{key}": visit.page.locator(f"#release-{number}-{key}")
        .locator("path.js-line, .point path")
        .count()
        for number in (1, 2)
        for key in PICTURES
    }
    assert all(marks.values()), marks


def test_the_report_loads_nothing_else(visit: Visit) -> None:
    """It makes no request except its own, and the console has no error."""
    assert visit.requested == [visit.page.url]
    assert visit.errors == []


@pytest.mark.parametrize("width", [360, 1280])
def test_the_report_fits_a_phone_and_a_desktop(visit: Visit, width: int) -> None:
    """Neither the page nor a table in it scrolls sideways."""
    visit.page.set_viewport_size({"width": width, "height": 800})
    visit.page.wait_for_function("document.querySelector('#release-2-weight .main-svg').clientWidth < innerWidth")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    rights = visit.page.evaluate("[...document.querySelectorAll('td')].map(e => e.getBoundingClientRect().right)")
    assert max(rights) <= width


def test_every_picture_has_a_text_alternative(visit: Visit) -> None:
    """The label says in numbers what the picture shows."""
    labels = [figure.get_attribute("aria-label") or "" for figure in visit.page.locator("figure [role=img]").all()]
    assert len(labels) == 2 * len(PICTURES)
    assert all(len(label) > 40 for label in labels)


def test_the_text_is_readable_in_light_and_dark_mode(visit: Visit) -> None:
    """Axis labels take the page's text colour."""
    lightness = {}
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        tick = visit.page.locator("#release-1-weight .xtick text").first
        colour: str = tick.evaluate("element => getComputedStyle(element).fill")
        lightness[scheme] = sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    assert lightness["light"] < 200
    assert lightness["dark"] > 500


def test_the_reason_is_above_the_pictures(visit: Visit) -> None:
    """The verdict comes first on this page too."""
    verdict = visit.page.locator("#release-2 .verdict")
    picture = visit.page.locator("#release-2-weight")
    assert "was rolled back" in verdict.inner_text()
    verdict_box, picture_box = verdict.bounding_box(), picture.bounding_box()
    assert verdict_box is not None
    assert picture_box is not None
    assert verdict_box["y"] < picture_box["y"]


def test_results_of_the_load_test_are_part_of_the_report(visit: Visit) -> None:
    """They are in a separate table."""
    assert "21 ms" in visit.page.get_by_role("heading", name="What users saw").locator("..").inner_text()
