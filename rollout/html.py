"""What the report and the status page share: templates, style, and prose as HTML. Pure."""

import re
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from rollout import numerals, wording

_CODE = re.compile(r"`([^`]+)`")
_QUANTITY = re.compile(r"(?<=\d) (?=(?:%|ms|s|min|h)\b|%)")


def prose(text: str) -> Markup:
    """Plain words as HTML: `commands` in code type, and no line break between a number and its unit."""
    escaped = _QUANTITY.sub("\N{NO-BREAK SPACE}", str(escape(text)))
    return Markup(_CODE.sub(r"<code>\1</code>", escaped))  # noqa: S704 - escaped just above


@cache
def style() -> Markup:
    """The stylesheet, to stand inside a page."""
    return Markup(files("rollout").joinpath("templates/style.css").read_text())  # noqa: S704 - our own file


@cache
def templates() -> Environment:
    """The templates, with the words of numerals.py and wording.py as filters."""
    environment = Environment(
        loader=PackageLoader("rollout"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "prose": prose,
        "clock": wording.clock,
        "count": numerals.count,
        "date": wording.date,
        "share": numerals.share,
        "slowness": wording.slowness,
        "span": numerals.span,
        "weight": numerals.weight,
        "words": lambda text: text.replace("_", " "),
    }
    environment.globals["style"] = style
    return environment
