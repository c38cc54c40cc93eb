"""The common parts of the HTML pages: templates, style, and prose as HTML."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from rollout.explain.format import clock, date, rescued, slowness
from rollout.format import about, count, sentence, share, span, weight

_CODE = re.compile(r"`([^`]+)`")
_QUANTITY = re.compile(r"(?<=\d) (?=(?:%|ms|s|min|h)\b|%)")


@dataclass(frozen=True, slots=True)
class Link:
    """A page outside this application, or one that is not always available."""

    title: str
    url: str


def prose(text: str) -> Markup:
    """Plain text as HTML: `commands` in code type, and no line break between a number and its unit."""
    escaped = _QUANTITY.sub("\N{NO-BREAK SPACE}", str(escape(text)))
    return Markup(_CODE.sub(r"<code>\1</code>", escaped))  # noqa: S704 - escaped just above


@cache
def style() -> Markup:
    """The stylesheet, to be embedded in a page."""
    return Markup(files("rollout.ui").joinpath("templates/style.css").read_text())  # noqa: S704 - our own file


@cache
def templates() -> Environment:
    """The templates, with the functions of the two modules `format` as filters."""
    environment = Environment(
        loader=PackageLoader("rollout.ui"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "prose": prose,
        "clock": clock,
        "count": count,
        "date": date,
        "sentence": lambda text: f"{sentence(text)}.",
        "share": share,
        "rate": lambda per_s: f"{about(per_s)}/s",
        "slowness": slowness,
        "rescued": rescued,
        "span": span,
        "weight": weight,
        "words": lambda text: text.replace("_", " "),
    }
    environment.globals["style"] = style
    return environment
