"""The runbooks as HTML; each alert links to its section."""

from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks" / "alerts.md"
NOT_HERE = "The runbooks are docs/runbooks/alerts.md of Kanaria's repository.\n"  # for an installed package


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
                inline.attrs.pop("href")  # links lead to files of the repository, which are not served
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))  # noqa: S704 - our own file
