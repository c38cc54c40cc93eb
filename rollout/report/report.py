"""The page around the pictures: releases and whatever else belongs to the story, as one HTML file. Pure.

Called by `kanaria report`, by the demo and by the controller's API.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import yaml
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from rollout.explain import Explanation, why
from rollout.html import templates
from rollout.report.picture import Picture
from rollout.report.pictures import pictures
from rollout.view import ReleaseView


@dataclass(frozen=True, slots=True)
class Section:
    """Something that others know, such as what a load test saw: words, a table, or both."""

    title: str
    lines: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class _Chapter:
    """One release, ready for the template."""

    release: ReleaseView
    explanation: Explanation
    pictures: tuple[tuple[Picture, Markup], ...]
    spec: str


def render_report(views: Sequence[ReleaseView], *, title: str, extra: Sequence[Section] = ()) -> str:
    """One self-contained HTML file; it needs no network, now or later."""
    return (
        templates()
        .get_template("report.html")
        .render(title=title, chapters=[_chapter(view) for view in views], extra=extra, plotly=_plotly())
    )


def _chapter(release: ReleaseView) -> _Chapter:
    return _Chapter(
        release=release,
        explanation=why(release),
        pictures=tuple((picture, _drawn(picture, release)) for picture in pictures(release)),
        spec=yaml.safe_dump(release.spec.model_dump(mode="json"), sort_keys=False, default_flow_style=None),
    )


def _drawn(picture: Picture, release: ReleaseView) -> Markup:
    html: str = picture.figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"release-{release.number}-{picture.key}",
        default_height=f"{picture.height}px",
        config={"displayModeBar": False, "responsive": True},
    )
    return Markup(html)  # noqa: S704 - Plotly escapes what it embeds


@cache
def _plotly() -> Markup:
    return Markup(get_plotlyjs())  # noqa: S704 - Plotly's own script
