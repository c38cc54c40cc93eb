"""Pages beside those of releases, which the boards link to: what to do about an alert, and the newest drift reports."""

from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from rollout.ui.html import style

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks" / "alerts.md"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Runbooks</title><style>{style}
main {{ max-width: 50rem }} h2 {{ margin-top: 2.5rem }} pre code {{ padding: 0 }}
:target {{ border-left: .3rem solid var(--canary); padding-left: .5rem }}</style></head>
<body><main>{body}</main></body></html>
"""


def pages(drift: Path) -> list[Route]:
    """The routes.

    Args:
        drift: the folder of drift reports, `<kind>.html`; they link to each other by the names of their files.
    """

    def get_runbooks(_: Request) -> Response:
        try:
            return HTMLResponse(_runbooks())
        except OSError:  # installed without its repository
            return PlainTextResponse("The runbooks are docs/runbooks/alerts.md of Kanaria's repository.\n", 404)

    def get_drift(request: Request) -> Response:
        path = drift / f"{request.path_params['kind'].removesuffix('.html')}.html"
        if not path.is_file():
            return PlainTextResponse(
                "There is no such drift report yet. Make one: kanaria drift report --last 1h\n", 404
            )
        return FileResponse(path)

    return [Route("/runbooks", get_runbooks), Route("/drift/{kind}", get_drift)]


@cache
def _runbooks() -> str:
    """The runbooks as one page; each alert's anchor is its name in lower case, as in the rules."""
    markdown = MarkdownIt()
    tokens = markdown.parse(RUNBOOKS.read_text())
    for opening, text in pairwise(tokens):
        if opening.type == "heading_open":
            opening.attrSet("id", text.content.lower())
        for inline in text.children or ():
            if inline.type == "link_open":
                inline.attrs.pop("href")  # to a file of the repository, which is not served
    body = markdown.renderer.render(tokens, markdown.options, {})
    return _PAGE.format(style=style(), body=body)
