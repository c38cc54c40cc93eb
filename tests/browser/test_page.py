"""The status page in a real browser: it acts, says what it will do, and fits a desktop, a phone and dark mode."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from kanaria.stack.pages import pages
from rollout.control import commands as c
from rollout.ledger.ledger import Ledger
from rollout.signals.options import Classes
from rollout.signals.plan import Signals
from rollout.sources.firing import Firing
from rollout.spec import RolloutSpec
from rollout.ui.api import Surroundings
from rollout.ui.callers import NamedToken, digest
from rollout.ui.html import Link
from tests.support.releases import LIVE, NO_SEVENS, DigitsWorld, digits_world
from tests.support.site import TOKEN, serving

HELD = LIVE.model_copy(update={"signals": Signals({"class": Classes(on_fail="hold")})})
LINKS = Surroundings(
    links=lambda: [Link("Runbooks", "/runbooks")],
    firing=lambda: [Firing({"alertname": "KanariaCanaryDown", "version": "digits:v2"}, 1.8e9)],
)
SIZES = {"desk": (1280, 800, "light"), "phone": (360, 740, "light"), "night": (1280, 800, "dark")}


def world_with(path: Path, spec: RolloutSpec, seconds: float, **canary: object) -> DigitsWorld:
    """A world in which the release of v2 was requested `seconds` ago."""
    world, controller = digits_world(path / "ledger.db", **canary)
    controller.execute(c.StartRelease("digits:v2", spec, "ann"))
    world.live(controller, seconds)
    controller.close()
    return world


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[str]:
    """A release that waits for a person."""
    world = world_with(tmp_path, HELD, 60, classes=NO_SEVENS)
    with serving(world, surroundings=LINKS, more=tuple(pages(tmp_path))) as url:
        yield url


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page; the test fails if an error is on its console at the end."""
    opened = browser.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    yield opened
    opened.close()
    assert [line for line in said if not re.search("status of 4(01|03|09|22)", line)] == []


def decision_kinds(path: Path) -> list[str]:
    """The kinds of all decisions in the ledger, oldest first."""
    ledger = Ledger(path / "ledger.db", read_only=True)
    try:
        return [event.kind for event in ledger.events(without_ticks=True)]
    finally:
        ledger.close()


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_cut_off(asked: str, page: Page, size: str) -> None:
    """Nothing scrolls sideways, and the text contrasts with its background."""
    width, height, scheme = SIZES[size]
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    for path in ("/", "/releases", "/runbooks"):
        page.goto(asked + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        cut = page.evaluate(
            "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 "
            "&& !e.closest('pre')).map(e => e.outerHTML.slice(0, 80))"
        )
        assert cut == [], path
        ink, paper = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
            ".map(c => c.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0))"
        )
        light, dark = (ink, paper) if scheme == "dark" else (paper, ink)
        assert (light > 500, dark < 200) == (True, True)


def test_the_call_for_a_person_comes_first_with_its_countdown(asked: str, page: Page) -> None:
    """It is also in the title, and an alert links to its runbook."""
    page.goto(asked)
    assert page.title() == "digits: waits for a person"
    call = page.get_by_role("region", name="A person is needed")
    assert re.search(r"waits for a person: \d+\smin \d+\ss", call.inner_text())
    box, table = call.bounding_box(), page.locator(".versions").bounding_box()
    assert box is not None
    assert table is not None
    assert box["y"] < table["y"]
    page.get_by_role("link", name="KanariaCanaryDown").click()
    expect(page.locator("#kanariacanarydown")).to_be_in_viewport()


def test_a_command_says_what_it_will_do_and_asks_for_the_token_once(asked: str, page: Page, tmp_path: Path) -> None:
    """After a wrong token it asks again; the next command in this tab asks for none."""
    page.goto(asked)
    page.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("digits:v2 keeps 25 % of the traffic, and goes no further until it is resumed")
    dialog.get_by_label("Reason").fill("let me look <b>")
    dialog.get_by_label("Your name").fill("eve")
    dialog.get_by_label("Token").fill("wrong")
    dialog.get_by_role("button", name="Pause").click()
    expect(dialog).to_contain_text("not a token")
    assert "paused" not in decision_kinds(tmp_path)
    dialog.get_by_label("Token").fill(TOKEN)
    dialog.get_by_role("button", name="Pause").click()
    expect(dialog).to_be_hidden()
    expect(page.locator(".story")).to_contain_text("paused by eve")
    expect(page.locator(".story")).to_contain_text("let me look <b>")
    page.get_by_role("button", name="Rollback").click()
    expect(dialog.get_by_label("Token")).to_be_hidden()
    expect(dialog).to_contain_text("digits:v2 goes into quarantine")
    dialog.get_by_role("button", name="Rollback").click()
    expect(page.locator("main")).to_contain_text("was rolled back")
    assert {"paused", "rolled_back"} <= set(decision_kinds(tmp_path))
    assert page.evaluate("localStorage.length") == 0


@pytest.mark.parametrize("token", ["copied\u2026", "zero\u200bwidth"])
def test_a_token_that_cannot_be_sent_is_asked_for_again(asked: str, page: Page, token: str) -> None:
    """It was pasted with a character that no header can hold: the tab does not keep it."""
    page.goto(asked)
    page.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Token").fill(token)
    dialog.get_by_role("button", name="Pause").click()
    expect(dialog).to_contain_text("not a token of the controller")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Pause").click()
    dialog.get_by_label("Token").fill(TOKEN)
    dialog.get_by_role("button", name="Pause").click()
    expect(page.locator(".story")).to_contain_text("paused by page")


def test_a_refused_name_can_be_corrected(asked: str, page: Page) -> None:
    """The tab keeps the token and the name only after a command with them was accepted."""
    page.goto(asked)
    page.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Token").fill(TOKEN)
    dialog.get_by_label("Your name").fill("judge")
    dialog.get_by_role("button", name="Pause").click()
    expect(dialog).to_contain_text("for a part of Kanaria; write the name of the person")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Pause").click()
    dialog.get_by_label("Token").fill(TOKEN)
    dialog.get_by_label("Your name").fill("ann")
    dialog.get_by_role("button", name="Pause").click()
    expect(page.locator(".story")).to_contain_text("paused by ann")


def test_a_token_with_too_low_a_role_can_be_replaced(page: Page, tmp_path: Path) -> None:
    """The page says so and asks for another token; a named token brings its own name."""
    tokens = {"of-bob": ("bob", "reader"), "of-ann": ("ann", "approver")}
    named = tuple(
        NamedToken(name=name, role=role, sha256=digest(token), made_s=0) for token, (name, role) in tokens.items()
    )
    world = world_with(tmp_path, LIVE, 10)
    with serving(world, named=named) as url:
        page.goto(url)
        page.get_by_role("button", name="Abort").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("it has its own name, and the name above is ignored")
        dialog.get_by_label("Your name").fill("somebody else")
        dialog.get_by_label("Token").fill("of-bob")
        dialog.get_by_role("button", name="Abort").click()
        expect(dialog).to_contain_text("your role is not enough for `abort`. bob has the role `reader`")
        dialog.get_by_label("Token").fill("of-ann")
        dialog.get_by_role("button", name="Abort").click()
        expect(page.locator(".story")).to_contain_text("aborted by ann")


def test_cancel_does_nothing(asked: str, page: Page, tmp_path: Path) -> None:
    """The Escape key does nothing either."""
    page.goto(asked)
    before = decision_kinds(tmp_path)
    page.get_by_role("button", name="Promote").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Abort").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert decision_kinds(tmp_path) == before


def test_a_confirmed_command_is_not_applied_to_a_changed_release(asked: str, page: Page, tmp_path: Path) -> None:
    """While one person reads the dialog, another promotes: the first must not end the watch."""
    page.goto(asked)
    page.evaluate("token => sessionStorage.setItem('kanaria-token', token)", TOKEN)
    page.get_by_role("button", name="Promote").click()
    promoted = page.request.post(
        f"{asked}/api/commands/promote", headers={"authorization": f"Bearer {TOKEN}"}, data={"by": "bob"}
    )
    assert promoted.ok
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Promote").click()
    expect(dialog).to_contain_text("the release moved on since you looked, so nothing was done")
    assert "ended" not in decision_kinds(tmp_path)


def test_a_version_is_restored_from_the_page(page: Page, tmp_path: Path) -> None:
    """The replaced version goes into quarantine; the history then has both releases with links to their reports."""
    world = world_with(tmp_path, LIVE, 90)
    with serving(world, surroundings=LINKS, more=tuple(pages(tmp_path))) as url:
        page.goto(url)
        expect(page.locator(".trace polyline.canary")).to_have_attribute("points", re.compile(r"\d+\.\d,\d+"))
        page.evaluate("token => sessionStorage.setItem('kanaria-token', token)", TOKEN)
        page.get_by_role("button", name="Restore digits:v1").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Put the replaced version into quarantine").check()
        dialog.get_by_role("button", name="Restore digits:v1").click()
        expect(page.locator(".story")).to_contain_text("which goes into quarantine")
        page.get_by_role("link", name="History").click()
        for number in (1, 2):
            page.locator(f"a[href='/releases/{number}']").click()
            expect(page.locator("h1")).to_contain_text(f"Release {number}")
            if number == 1:
                page.wait_for_selector("#release-1-weight .main-svg")
            page.get_by_role("link", name="History").click()


def test_every_link_leads_to_a_page(asked: str, page: Page) -> None:
    """From the status page, every page of ours that can be reached exists."""
    seen, waiting = set(), ["/"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        answer = page.request.get(asked + path)
        assert answer.status == 200, path
        if "html" in answer.headers["content-type"] and not path.startswith("/releases/"):
            found = re.findall(r'(?:href|src)="(/[^"#]*)', answer.text())
            waiting += found
    assert {"/", "/releases", "/releases/1", "/runbooks", "/static/style.css", "/static/page.js", "/api/status"} <= seen


def test_without_scripts_the_page_reloads_and_shows_the_commands(browser: Browser, asked: str) -> None:
    """The commands are beside their buttons."""
    context = browser.new_context(java_script_enabled=False)
    bare = context.new_page()
    bare.goto(asked)
    assert bare.locator("noscript meta, meta[http-equiv=refresh]").count() == 1
    expect(bare.locator("main")).to_contain_text("kanaria rollback")
    context.close()


def test_another_site_can_neither_frame_nor_read_the_page(browser: Browser, asked: str, tmp_path: Path) -> None:
    """A page of another site gets an empty frame and no answer to its requests."""
    outside = tmp_path / "outside.html"
    outside.write_text(f"<iframe src='{asked}/'></iframe>")
    opened = browser.new_page()
    opened.goto(outside.as_uri())
    opened.wait_for_timeout(500)
    assert ["waits for a person" in frame.content() for frame in opened.frames[1:]] == [False]
    read = opened.evaluate("url => fetch(url + '/api/status').then(a => a.text()).catch(e => String(e))", asked)
    assert "Failed to fetch" in read
    opened.close()
