"""The web pages of runbooks and of the newest drift reports, which the boards link to."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from monitoring.drift.result import KINDS, Kind, read_result
from rollout.ui.html import Link, templates
from rollout.ui.runbooks import NOT_HERE, runbooks

DRIFT_TITLES: Mapping[Kind, str] = MappingProxyType({"data": "Drift of the traffic", "release": "Drift of the canary"})
# Evidently's page is one file with its own scripts. Its sandbox has no origin: it cannot see the token or the status.
_OF_EVIDENTLY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; frame-ancestors 'self'"
)
_NONE_YET = "There is no such drift report yet. Make one: kanaria drift report --last 1h\n"


def pages(drift: Path, *, links: Callable[[], Iterable[Link]] = tuple) -> list[Route]:
    """The routes.

    Args:
        drift: the folder of drift reports: `<kind>.json`, and `<kind>.html` by Evidently.
        links: returns the links of the navigation.
    """

    def get_runbooks(_: Request) -> Response:
        try:
            body = runbooks()
        except OSError:
            return PlainTextResponse(NOT_HERE, 404)
        page = templates().get_template("runbooks.html")
        return HTMLResponse(page.render(body=body, links=list(links())))

    def get_drift(request: Request) -> Response:
        kind = next((kind for kind in KINDS if kind == request.path_params["kind"]), None)
        result = read_result(drift / f"{kind}.json") if kind else None
        if kind is None or result is None:
            return PlainTextResponse(_NONE_YET, 404)
        page = templates().get_template("drift.html")
        drawn = [path.name for path in _drawn(drift, kind)]
        title, here = DRIFT_TITLES[kind], f"/drift/{kind}"
        return HTMLResponse(page.render(title=title, here=here, result=result, drawn=drawn, links=list(links())))

    def get_drawn(request: Request) -> Response:
        name = f"{request.path_params['name']}.html"
        path = next((path for path in drift.glob("*.html") if path.name == name), None)
        if path is None:
            return PlainTextResponse(_NONE_YET, 404)
        alone = {"cross-origin-opener-policy": "unsafe-none"}  # required by the sandbox
        return FileResponse(path, headers={"content-security-policy": _OF_EVIDENTLY, **alone})

    return [
        Route("/runbooks", get_runbooks),
        Route("/drift/{name}.html", get_drawn),
        Route("/drift/{kind}", get_drift),
    ]


def _drawn(drift: Path, kind: Kind) -> list[Path]:
    """The existing pages of a report."""
    return [path for stem in (kind, f"{kind}-quality") if (path := drift / f"{stem}.html").is_file()]
