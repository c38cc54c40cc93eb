"""What to do about an alert, as a part of a page: alerts link to it."""

from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks" / "alerts.md"
NOT_HERE = "The runbooks are docs/runbooks/alerts.md of Kanaria's repository.\n"  # installed without its repository


@cache
def runbooks() -> Markup:
    """The runbooks; each alert's anchor is its name in lower case, as in the rules. Raises OSError."""
    markdown = MarkdownIt()
    tokens = markdown.parse(RUNBOOKS.read_text())
    for opening, text in pairwise(tokens):
        if opening.type == "heading_open":
            opening.attrSet("id", text.content.lower())
        for inline in text.children or ():
            if inline.type == "link_open":
                inline.attrs.pop("href")  # to a file of the repository, which is not served
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))  # noqa: S704 - our own file
