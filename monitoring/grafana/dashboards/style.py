"""What every panel has: description, unit, thresholds, queries, links to its runbook and the status page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from grafana_foundation_sdk.builders import (
    barchart,
    bargauge,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
)
from grafana_foundation_sdk.builders import timeseries as lines
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models import prometheus as p

from monitoring.grafana.dashboards.needs import Needs

DATA_SOURCE_UID = "kanaria-prometheus"
DATA_SOURCE = d.DataSourceRef(type_val="prometheus", uid=DATA_SOURCE_UID)

GOOD, WARN, BAD, PLAIN = "green", "orange", "red", "text"
STABLE, CANARY = "blue", "orange"

Step = tuple[float | None, str]  # the value from which a colour holds, and the colour; None: from the lowest value


@dataclass(frozen=True, slots=True)
class About:
    """The texts, the unit and the thresholds of a panel."""

    title: str
    description: str  # what it shows, what is usual, and what it means otherwise
    unit: str  # as Grafana names units
    thresholds: Sequence[Step]
    runbook: str  # the alert whose runbook applies; "": all runbooks
    needs: Needs = Needs.TRAFFIC
    page: tuple[str, str] | None = None  # title and path of one more page of the controller


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression; `legend` may contain labels, as in `{{version}}`."""

    expr: str
    legend: str = ""
    needs: Needs | None = None  # None: the need of its panel
    min_step: str | None = None  # rates are taken over at least this time; make it longer if events are rare
    form: Literal["over time", "now", "table", "heatmap"] = "over time"  # "table": now, with the labels as columns


@dataclass(frozen=True, slots=True)
class Panel:
    """A finished panel and what each of its queries needs to find something."""

    drawing: cog.Builder[d.Panel]
    needs: tuple[Needs, ...]


Drawing = TypeVar(
    "Drawing", barchart.Panel, bargauge.Panel, heatmap.Panel, lines.Panel, stat.Panel, statetimeline.Panel
)


def finished(drawing: Drawing, about: About, queries: Sequence[Query], span: int, height: int) -> Panel:
    """Add to `drawing` what every panel has."""
    steps = [d.Threshold(value=value, color=color) for value, color in about.thresholds]
    pages: list[tuple[str, str]] = [("Status page", "/"), *filter(None, [about.page])]
    drawing = (
        drawing.title(about.title)
        .description(about.description)
        .unit(about.unit)
        .datasource(DATA_SOURCE)
        .thresholds(dashboard.ThresholdsConfig().mode(d.ThresholdsMode.ABSOLUTE).steps(steps))
        .span(span)
        .height(height)
        .links(
            [
                link("Runbook", f"${{runbooks:raw}}#{about.runbook.lower()}".removesuffix("#")),
                *(link(title, f"${{controller:raw}}{path}") for title, path in pages),
            ]
        )
    )
    for place, query in enumerate(queries):
        drawing.with_target(_target(query, chr(ord("A") + place)))
    return Panel(drawing, tuple(query.needs or about.needs for query in queries))


def link(title: str, url: str) -> dashboard.DashboardLink:
    """A link that opens in a new tab; `url` may contain variables."""
    return dashboard.DashboardLink(title).type(d.DashboardLinkType.LINK).url(url).target_blank(True)


def _target(query: Query, ref_id: str) -> prometheus.Dataquery:
    target = (
        prometheus.Dataquery()
        .datasource(DATA_SOURCE)
        .expr(query.expr)
        .legend_format(query.legend or "__auto")
        .ref_id(ref_id)
        .editor_mode(p.QueryEditorMode.CODE)
    )
    if query.min_step:
        target.interval(query.min_step)
    if query.form == "heatmap":
        target.format(p.PromQueryFormat.HEATMAP)
    if query.form == "table":
        target.format(p.PromQueryFormat.TABLE)
    return target.instant() if query.form in ("now", "table") else target.range()
