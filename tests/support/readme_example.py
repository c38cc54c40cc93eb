"""What the README shows of a release in the simulated world: the text of `kanaria why`, a picture of the status page.

`python -m tests.support.readme_example` writes both again; the picture needs the system's Chromium.
"""

import re
import shutil
import tempfile
from io import StringIO
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console

from rollout.control import commands as c
from rollout.ui import terminal_reports
from rollout.ui.html import style
from rollout.ui.status import build_status
from rollout.ui.web import status_page
from tests.support.paths import ROOT
from tests.support.releases import LIVE, NO_SEVENS, digits_world, finished, newest

README = ROOT / "README.md"
PICTURE = ROOT / "docs/pictures/status.png"
CHROMIUM_ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")

_WIDTH = 100  # of the terminal, in characters
_LEFT_OUT = "The other signals"  # and what follows it
_BLOCK = re.compile(r"(```text\n\$ kanaria why\n).*?(```)", re.DOTALL)
_LINK = '<link rel="stylesheet" href="/static/style.css">'  # the page is a file here, and nothing serves this link
_SECONDS = 27.0  # into the release, when the evidence is strong but not yet sufficient


def why_text() -> str:
    """What `kanaria why` prints about a version that misses most sevens, up to the signals that found nothing."""
    with tempfile.TemporaryDirectory() as folder:
        release = finished(Path(folder) / "ledger.db", LIVE, classes=NO_SEVENS)
    output = StringIO()
    Console(file=output, width=_WIDTH).print(terminal_reports.why(release))
    lines = [line.rstrip() for line in output.getvalue().partition(_LEFT_OUT)[0].splitlines()]
    return "\n".join(lines).strip()


def readme() -> str:
    """The README with that text in its place."""
    text, count = _BLOCK.subn(lambda block: f"{block[1]}{why_text()}\n{block[2]}", README.read_text())
    if count != 1:
        raise ValueError(f"README.md must have one block of text that begins with `$ kanaria why`, it has {count}")
    return text


def status_html() -> str:
    """The status page in the middle of that release."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        world, controller = digits_world(path, classes=NO_SEVENS)
        controller.execute(c.StartRelease("digits:v2", LIVE, "ann"))
        world.live(controller, _SECONDS)
        page = status_page(build_status("digits", controller.snapshot, newest(path)))
        controller.close()
    return page


def take_picture(chromium: str) -> None:
    """Write the picture of that page in light colours."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        html = Path(folder) / "status.html"
        html.write_text(status_html().replace(_LINK, f"<style>{style()}</style>"))
        browser = playwright.chromium.launch(executable_path=chromium, args=[*CHROMIUM_ARGUMENTS])
        page = browser.new_page(viewport={"width": 900, "height": 400}, color_scheme="light", java_script_enabled=False)
        page.goto(html.as_uri())
        PICTURE.parent.mkdir(exist_ok=True)
        page.screenshot(path=PICTURE, full_page=True)
        browser.close()


if __name__ == "__main__":
    README.write_text(readme())
    take_picture(shutil.which("chromium") or "chromium")
