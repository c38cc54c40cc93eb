"""The page around the pictures: releases and further sections as one HTML file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import yaml
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from rollout.explain.timeline import Timeline
from rollout.explain.why import Explanation, means, why
from rollout.ledger.chain import Head
from rollout.ui.html import Link, templates
from rollout.ui.report.picture import Picture
from rollout.ui.report.pictures import pictures

_SCRIPT = '<script type="text/javascript"'  # how Plotly begins a script; `<` is escaped in everything it embeds


@dataclass(frozen=True, slots=True)
class Section:
    """A further section, such as the result of a load test: text, a table, or both."""

    title: str
    lines: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class _Chapter:
    """One release, ready for the template."""

    release: Timeline
    explanation: Explanation
    pictures: tuple[tuple[Picture, Markup], ...]
    spec: str
    means: dict[str, str]  # by signal whose events are numbers, in words


def of_ledger(head: Head) -> Section:
    """The section about the ledger from which the report was made."""
    written = f"When this was written, event {head.events:,} was the last, with the hash `{head.shown}`."
    later = f"`kanaria ledger check --at {head.events}` prints the same hash as long as nobody has changed the ledger."
    return Section("The ledger", (f"{written} {later}",))


def render_report(
    timelines: Sequence[Timeline],
    *,
    title: str,
    extra: Sequence[Section] = (),
    nonce: str = "",
    links: Iterable[Link] = (),
) -> str:
    """One self-contained HTML file; it needs no network, now or later.

    Args:
        timelines: the releases.
        title: the title of the page.
        extra: further sections.
        nonce: for its scripts, if it is served with a Content-Security-Policy; then it also has a navigation.
        links: the links in that navigation.
    """
    chapters = [_chapter(timeline, nonce) for timeline in timelines]
    page = templates().get_template("report.html")
    return page.render(title=title, chapters=chapters, extra=extra, plotly=_plotly(), nonce=nonce, links=list(links))


def _chapter(release: Timeline, nonce: str) -> _Chapter:
    signals = release.shown_evidence.signals if release.shown_evidence else {}
    return _Chapter(
        release=release,
        explanation=why(release),
        pictures=tuple((picture, _drawn(picture, release, nonce)) for picture in pictures(release)),
        means={name: means(name, judged, release) for name, judged in signals.items() if judged.difference},
        spec=yaml.safe_dump(release.spec.model_dump(mode="json"), sort_keys=False, default_flow_style=None),
    )


def _drawn(picture: Picture, release: Timeline, nonce: str) -> Markup:
    html: str = picture.figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"release-{release.number}-{picture.key}",
        default_height=f"{picture.height}px",
        config={"displayModeBar": False, "responsive": True},
    )
    if nonce:
        html = html.replace(_SCRIPT, f'{_SCRIPT} nonce="{nonce}"')
    return Markup(html)  # noqa: S704 - Plotly escapes what it embeds


@cache
def _plotly() -> Markup:
    return Markup(get_plotlyjs())  # noqa: S704 - Plotly's own script
