"""The pages for people: status, history and reports, with the files that they need, all from the controller alone."""

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
_ASKED_AGAIN_S = 5.0  # which alerts fire
_NUMBER = re.compile(r"[0-9]{1,18}")  # of a release; SQLite has no larger ones
# A report is one file with its own scripts: each has the number of this answer, so that no text in it can be one.
_REPORT = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class AlertsNow:
    """Which alerts fire, for a page that is asked for all the time. One that is not known is shown as none."""

    def __init__(self, firing: Callable[[], Sequence[Firing]]) -> None:
        self._firing = firing
        self._known: tuple[Firing, ...] = ()
        self._until_s = 0.0

    def __call__(self) -> tuple[Firing, ...]:
        if time.monotonic() >= self._until_s:
            self._until_s = time.monotonic() + _ASKED_AGAIN_S  # first, so that others do not ask meanwhile
            try:
                self._known = tuple(self._firing())
            except SourceUnreachable:
                self._known = ()
        return self._known


@dataclass(frozen=True, slots=True)
class Site:
    """Where the pages get what they show.

    Args:
        status: the present one.
        read_ledger: opens the ledger for reading.
        links: to other pages; only those that lead somewhere now.
        alerts: those that fire now.
    """

    status: Callable[[], StatusView]
    read_ledger: Callable[[], Ledger]
    links: Callable[[], Iterable[Link]]
    alerts: Callable[[], Sequence[Firing]]
    # A report is drawn while the loop waits for the interpreter, so many readers must not have one each drawn at once.
    _drawn: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))

    def routes(self) -> list[Route]:
        """Raises, when they are asked: LedgerError, NoSuchRelease."""
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
