"""The summary of a run as one HTML page with charts, which needs no network."""

from collections.abc import Sequence
from datetime import UTC, datetime

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from loadtest.results import Summary, Window
from loadtest.tables import as_text

# The colours of Okabe and Ito, which colour-blind readers can distinguish.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#777777",
)
VERSION_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
TEMPLATES = Environment(loader=PackageLoader("loadtest", "."), autoescape=True, undefined=StrictUndefined)


def render(summary: Summary) -> str:
    """The whole page, plotly's script included (about 4 MB)."""
    picture = _figure(summary).to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})
    return TEMPLATES.get_template("report.html.j2").render(
        s=summary,
        started=f"{datetime.fromtimestamp(summary.started_at, UTC):%Y-%m-%d %H:%M:%S} UTC",
        clock=lambda at: f"{datetime.fromtimestamp(at, UTC):%H:%M:%S.%f}"[:-3],
        as_text=as_text,
        plotly=get_plotlyjs(),
        picture=picture,
    )


def _figure(summary: Summary) -> go.Figure:
    """Four charts on one time axis, so that simultaneous events line up."""
    titles = (
        "Latency, ms",
        "Requests per second",
        "Failed, and sent late or never, per second",
        "Answers by version, %",
    )
    figure = make_subplots(rows=4, cols=1, shared_xaxes=True, vertical_spacing=0.06, subplot_titles=titles)
    _add_latency(figure, summary)
    _add_rates(figure, summary)
    _add_versions(figure, summary)
    figure.update_layout(template="plotly_white", height=1000, barmode="stack", hovermode="x unified", margin={"t": 40})
    for row, legend in enumerate(("legend", "legend2", "legend3", "legend4"), start=1):  # each beside its chart
        figure.update_traces(legend=legend, row=row, col=1)
        figure.update_layout({legend: {"y": figure.get_subplot(row, 1).yaxis.domain[1], "yanchor": "top"}})
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(type="log", row=1, col=1)
    figure.update_xaxes(range=[0, max(1.0, summary.duration_s)])
    figure.update_xaxes(title_text="seconds from the start", row=4, col=1)
    return figure


def _middles_s(summary: Summary, windows: Sequence[Window]) -> list[float]:
    return [window.start_s + summary.window_s / 2 for window in windows]


def _add_latency(figure: go.Figure, summary: Summary) -> None:
    windows = [window for window in summary.windows if window.scheduled.count]
    for name, colour in (("p50", GREEN), ("p95", BLUE), ("p99", RED)):
        for basis, dash in (("scheduled", "solid"), ("service", "dot")):
            figure.add_scatter(
                x=_middles_s(summary, windows),
                y=[getattr(getattr(window, basis), f"{name}_ms") for window in windows],
                name=f"{name} {basis}",
                mode="lines",
                line={"color": colour, "dash": dash, "width": 1.5},
                row=1,
                col=1,
            )
    for gate in summary.gates:
        if gate.name.endswith("_ms"):  # a trace, because plotly misplaces the text of a line across a log axis
            line = {"color": GREY, "dash": "dash", "width": 1}
            x = [0, max(1.0, summary.duration_s)]
            figure.add_scatter(
                x=x, y=[gate.limit] * 2, name=f"gate {gate.name[:3]}", mode="lines", line=line, row=1, col=1
            )


def _add_rates(figure: go.Figure, summary: Summary) -> None:
    at_s = _middles_s(summary, summary.windows)

    def per_second(count: str) -> list[float]:
        return [getattr(window, count) / summary.window_s for window in summary.windows]

    for name, colour, dash in (("offered", GREY, "dot"), ("answered", BLUE, "solid")):
        line = {"color": colour, "dash": dash, "shape": "hvh"}
        figure.add_scatter(x=at_s, y=per_second(name), name=name, mode="lines", line=line, row=2, col=1)
    figure.add_bar(x=at_s, y=per_second("failures"), name="failed", marker_color=RED, row=3, col=1)
    figure.add_bar(x=at_s, y=per_second("slipped"), name="late or never", marker_color=ORANGE, row=3, col=1)


def _add_versions(figure: go.Figure, summary: Summary) -> None:
    windows = [window for window in summary.windows if window.versions]
    for index, version in enumerate(summary.versions):
        figure.add_scatter(
            x=_middles_s(summary, windows),
            y=[window.versions.get(version, 0) for window in windows],
            name=version,
            stackgroup="versions",
            groupnorm="percent",
            mode="lines",
            line={"width": 0.5, "color": VERSION_COLOURS[index % len(VERSION_COLOURS)]},
            row=4,
            col=1,
        )
