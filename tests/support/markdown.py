"""The project's Markdown pages: their code blocks with the notes above them, their headings and links."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.support.paths import ROOT

PAGES = tuple(
    path.relative_to(ROOT)
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
)
RUNNABLE = ("sh", "python")

_NOTE = re.compile(r"<!--\s*(not run|none below is run|first|may end with 1):\s*(.+?)\s*-->", re.DOTALL)
_ANCHOR = re.compile(r"""<a\s+(?:id|name)=["']([^"']+)["']""")


@dataclass(frozen=True, slots=True)
class Block:
    """One block of code.

    Notes, which only the source shows, may stand above it: `<!-- not run: why -->`; `<!-- first: command -->` with what
    the page assumes; `<!-- may end with 1: why -->`. `<!-- none below is run: why -->` applies to the rest of a page.
    """

    page: Path
    line: int  # of its first line of code, 1-based
    language: str
    code: str
    not_run: str | None
    first: str | None
    may_end_with_1: bool

    @property
    def is_runnable(self) -> bool:
        return self.language in RUNNABLE

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Every block of code of a page, in order."""
    rest_is_not_run: str | None = None
    notes: dict[str, str] = {}
    for token in _tokens(page):
        if token.type == "html_block":
            notes |= dict(_NOTE.findall(token.content))
            rest_is_not_run = notes.pop("none below is run", rest_is_not_run)
        elif token.type in ("fence", "code_block"):
            line = (token.map or [0])[0] + (2 if token.type == "fence" else 1)
            not_run = notes.get("not run", rest_is_not_run)
            yield Block(
                page, line, token.info.strip(), token.content, not_run, notes.get("first"), "may end with 1" in notes
            )
            notes = {}
        elif token.nesting >= 0:
            notes = {}


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links and pictures."""
    for token in _tokens(page):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if isinstance(target, str):
                yield target


def anchors(page: Path) -> set[str]:
    """What a link into a page may name after `#`: its headings, as GitHub writes them, and its explicit anchors."""
    found: set[str] = set(_ANCHOR.findall((ROOT / page).read_text()))
    for opening, inline in pairwise(_tokens(page)):
        if opening.type == "heading_open":
            words = "".join(child.content for child in inline.children or ())
            slug = _slug(words)
            count = sum(1 for one in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", one))
            found.add(f"{slug}-{count}" if count else slug)
    return found


def _slug(heading: str) -> str:
    kept = (letter for letter in heading.lower() if letter in " -_" or unicodedata.category(letter)[0] in "LNM")
    return "".join(kept).replace(" ", "-")


def _tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text())
