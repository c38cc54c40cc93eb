"""The pages for people: status, history and reports, with the files that they need, all served by the controller."""

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files

import structlog
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from rollout.errors import NoSuchRelease, SourceUnreachable
from rollout.explain.timeline import timeline
from rollout.ledger.ledger import Ledger
from rollout.sources.firing import Firing
from rollout.ui.history import past_releases
from rollout.ui.html import Link, templates
from rollout.ui.report import of_ledger, render_report
from rollout.ui.views import StatusView
from rollout.ui.web import status_page

log = structlog.get_logger()

_FILES = {"style.css": "text/css", "page.js": "text/javascript"}
_ASKED_AGAIN_S = 5.0  # between two queries for firing alerts
_NUMBER = re.compile(r"[0-9]{1,18}")  # of a release; SQLite's integers are not longer
# A report is one file with its own scripts. Each script has this answer's nonce, so that no text can become a script.
_REPORT = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class AlertsNow:
    """The firing alerts, cached for a page that is fetched all the time; empty if they cannot be read."""

    def __init__(self, firing: Callable[[], Sequence[Firing]]) -> None:
        self._firing = firing
        self._known: tuple[Firing, ...] = ()
        self._until_s = 0.0

    def __call__(self) -> tuple[Firing, ...]:
        if time.monotonic() >= self._until_s:
            self._until_s = time.monotonic() + _ASKED_AGAIN_S  # set first, so that other threads do not ask meanwhile
            try:
                self._known = tuple(self._firing())
            except SourceUnreachable:
                self._known = ()
        return self._known


@dataclass(frozen=True, slots=True)
class Site:
    """The pages.

    Args:
        status: returns the present status.
        read_ledger: opens the ledger for reading.
        links: returns links to other pages that are available now.
        alerts: returns the firing alerts.
    """

    status: Callable[[], StatusView]
    read_ledger: Callable[[], Ledger]
    links: Callable[[], Iterable[Link]]
    alerts: Callable[[], Sequence[Firing]]
    # While a report is drawn, the control loop waits for the interpreter, so only one is drawn at a time.
    _drawn: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))

    def routes(self) -> list[Route]:
        """The routes of the pages. Their handlers raise LedgerError, NoSuchRelease."""
        return [
            Route("/", self._answer(self._status)),
            Route("/releases", self._answer(self._history)),
            Route("/releases/{number}", self._report),
            Route("/static/{name}", _file),
        ]

    def _answer(self, page: Callable[[], str]) -> Callable[[Request], Awaitable[Response]]:
        async def get(_: Request) -> Response:
            return HTMLResponse(await run_sync(page))

        return get

    def _status(self) -> str:
        return status_page(self.status(), links=self.links(), alerts=self.alerts())

    def _history(self) -> str:
        ledger = self.read_ledger()
        try:
            releases = past_releases(ledger.events(without_ticks=True))
        finally:
            ledger.close()
        page = templates().get_template("history.html")
        return page.render(name=self.status().name, releases=releases, links=self.links())

    async def _report(self, request: Request) -> Response:
        number, nonce = str(request.path_params["number"]), secrets.token_urlsafe(16)
        if not _NUMBER.fullmatch(number):
            raise NoSuchRelease(number[:40])
        page = await run_sync(partial(self._rendered, int(number), nonce), limiter=self._drawn)
        return HTMLResponse(page, headers={"content-security-policy": _REPORT.format(nonce=nonce)})

    def _rendered(self, number: int, nonce: str) -> str:
        ledger = self.read_ledger()
        try:
            release, of_its_ledger = timeline(ledger.of_release(number)), of_ledger(ledger.head())
        finally:
            ledger.close()
        title = f"Release {number}: {release.canary}"
        return render_report([release], title=title, extra=[of_its_ledger], nonce=nonce, links=self.links())


async def _file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _FILES:
        return Response(status_code=404)
    content = files("rollout.ui").joinpath("templates", name).read_text()
    return Response(content, media_type=_FILES[name], headers={"cache-control": "no-cache"})
