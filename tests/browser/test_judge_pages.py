"""The judge's pages in a real browser, wide and narrow: all releases, the evidence of one, and the runbooks."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.generated_series import SHAPES, Pod, openmetrics, prometheus_with
from tests.support.judges import Judge, judging

pytestmark = pytest.mark.needs("judge", "serve")

_HASH = "rollouts_pod_template_hash"


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Iterator[Judge]:
    """A judge that was asked about a failing canary, one with too little data, and an unknown one."""
    folder, end_s = tmp_path_factory.mktemp("judge"), time.time() + 300
    pods = [
        Pod({"pod": "s", _HASH: "6c9f8"}, end_s - 2400, end_s, per_scrape=20),
        Pod({"pod": "b", _HASH: "7fd54"}, end_s - 900, end_s, per_scrape=20, error_ratio=0.2),
        Pod({"pod": "y", _HASH: "a-young-one"}, end_s - 400, end_s, per_scrape=1),
    ]
    lines = openmetrics(SHAPES["bentoml"], pods)
    for canary, verdict in (("7fd54", "fail"), ("b81c2", "inconclusive")):  # verdicts that another replica gave
        series = f'kanaria_judge_verdict{{release="shop/digits",canary="{canary}",verdict="{verdict}",pod="judge-1"}}'
        lines += [f"{series} 1 {end_s - 300 + 15 * number:.3f}" for number in range(20)]
    programs = {name: require_program(name) for name in ("prometheus", "promtool")}
    with prometheus_with(folder / "prometheus", lines, **programs) as url, judging(folder / "judge", url) as replica:
        for canary in ("7fd54", "a-young-one", "nobody-knows-it"):
            asked = {"namespace": "shop", "rollout": "digits", "canary": canary, "stable": "6c9f8"}
            assert replica.ask(asked | {"profile": "bentoml", "to_percent": 25}).status_code == 200
        harm = {"namespace": "shop", "rollout": "digits", "canary": "a-young-one", "stable": "6c9f8"}
        # A background analysis asks without a weight.
        assert replica.ask(harm | {"profile": "bentoml"}).json()["verdict"] == "pass"
        yield replica


@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_fits_and_links_to_the_others(judge: Judge, browser: Browser, width: int) -> None:
    """No page scrolls sideways, and the content security policy blocks nothing."""
    page, said = browser.new_page(viewport={"width": width, "height": 900}), []
    page.on("console", lambda message: said.append(message.text))

    def fits() -> bool:
        return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))

    page.goto(judge.url)
    assert fits()
    assert page.locator("li", has_text="a-young-one").locator(".badge").inner_text() == "inconclusive"
    assert page.locator("code").first.inner_text().startswith("bentoml_service_request_total{")
    assert page.locator("code").first.inner_text().endswith("}")
    page.get_by_role("link", name="shop/digits: 7fd54").click()
    assert page.locator(".verdict .badge").inner_text() == "fail"
    assert page.locator("table.signals tr", has_text="errors").locator("rect.full").count() == 1
    assert fits()
    page.get_by_role("link", name="Runbooks").click()
    assert page.locator("#kanariajudgemissing").is_visible()
    assert fits()
    page.get_by_role("link", name="Releases").click()
    assert page.get_by_role("heading", name="Releases that are judged").is_visible()
    assert said == []
    page.close()


def test_a_failed_canary_is_listed_once(judge: Judge, browser: Browser, tmp_path: Path) -> None:
    """It is among the releases that were asked about, or in quarantine if the judge has just started."""
    page = browser.new_page()
    page.goto(judge.url)
    assert page.get_by_role("link", name="shop/digits: 7fd54").count() == 1
    with judging(tmp_path, judge.url) as other:
        (tmp_path / "judge.db").write_bytes((judge.folder / "judge.db").read_bytes())
        page.goto(other.url)
        assert page.get_by_role("heading", name="In quarantine").is_visible()
        assert page.get_by_role("link", name="shop/digits: 7fd54").count() == 1
    page.close()


def test_releases_that_another_replica_judged_are_listed(judge: Judge, browser: Browser) -> None:
    """The Service leads to either replica; the page names the one that has the evidence."""
    page = browser.new_page()
    page.goto(judge.url)
    (other,) = page.get_by_text("by judge-1").locator("..").all()
    assert other.inner_text() == "shop/digits: b81c2 inconclusive by judge-1"
    answer = page.goto(f"{judge.url}/releases/shop/digits/b81c2")
    assert answer is not None
    assert (answer.status, "but judge-1 was" in answer.text()) == (404, True)
    page.close()
