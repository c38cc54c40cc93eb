"""Draws a study's pictures as Plotly figures, in the style of the release report."""

import math
from collections import Counter
from collections.abc import Sequence

import plotly.graph_objects as go

from rollout.format import count, share
from rollout.simulate.release import Run
from rollout.simulate.study import Findings
from rollout.ui.report.picture import Picture
from rollout.ui.report.style import CANARY, FAIL, QUIET, new_figure

_GOOD = "#1f9d61"
_HARMLESS, _HARMFUL = "harmless", "harmful"
_OUTCOMES = (("promoted", _GOOD), ("stopped as harmful", FAIL), ("stopped by a deadline", CANARY))
_POINTS = 200  # of a curve; more would only make the file larger


def pictures(findings: Findings) -> list[Picture]:
    """The outcomes of the releases, then how long they took and what they cost."""
    return [_outcomes(findings), _promotion(findings), _detection(findings), _harm(findings)]


def _outcomes(findings: Findings) -> Picture:
    figure = new_figure(None)
    kinds = ((_HARMLESS, findings.harmless), (_HARMFUL, findings.harmful))
    for outcome, colour in _OUTCOMES:
        shares = [Counter(_outcome(run) for run in runs)[outcome] / len(runs) for _, runs in kinds]
        figure.add_bar(
            y=[kind for kind, _ in kinds],
            x=[100 * ratio for ratio in shares],
            name=outcome,
            orientation="h",
            marker={"color": colour},
            text=[share(ratio) if ratio > 0.06 else "" for ratio in shares],
            insidetextanchor="middle",
            insidetextfont={"color": "#0d1117"},
            hovertemplate="%{x:.1f} %",
        )
    figure.update_layout(barmode="stack", hovermode="y unified")
    figure.update_xaxes(range=[0, 100], ticksuffix=" %")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return Picture(
        key="outcomes",
        title="Outcomes of the releases",
        caption=f"{count(len(findings.harmless))} releases of a harmless canary, and as many of a harmful one.",
        figure=figure,
        legend=_OUTCOMES,
        height=170,
        is_wide=True,
    )


def _promotion(findings: Findings) -> Picture:
    return Picture(
        key="promotion",
        title="A harmless canary is promoted",
        caption="Share of harmless canaries that were promoted, by the time since their first request.",
        figure=_over_time(findings.promotion_s, _GOOD),
        legend=(),
        height=260,
    )


def _detection(findings: Findings) -> Picture:
    return Picture(
        key="detection",
        title="A harmful canary is stopped",
        caption=(
            "Share of harmful canaries that were stopped, by the time since their first live request, "
            "or since their harm began."
        ),
        figure=_over_time(findings.detection_s, FAIL),
        legend=(),
        height=260,
    )


def _harm(findings: Findings) -> Picture:
    figure = new_figure(None)
    figure.add_histogram(
        x=findings.harmed,
        nbinsx=40,
        histnorm="percent",
        marker={"color": FAIL},
        hovertemplate="%{y:.1f} % of the releases<extra>%{x} requests</extra>",
    )
    figure.update_layout(bargap=0.06, hovermode="closest")
    figure.update_xaxes(title={"text": "requests harmed", "standoff": 6}, rangemode="tozero")
    figure.update_yaxes(ticksuffix=" %")
    figure.update_layout(margin={"b": 48})
    return Picture(
        key="harm",
        title="Requests harmed in one release",
        caption=(
            "Requests that the harmful canary answered worse than stable would have, until it was stopped "
            f"or promoted; on average {share(findings.harmed_ratio)} of all requests in that time."
        ),
        figure=figure,
        legend=(),
        height=260,
        is_wide=True,
    )


def _over_time(times_s: Sequence[float], colour: str) -> go.Figure:
    """The share of all releases that have finished by each time."""
    figure = new_figure(None)
    done = sorted(time_s for time_s in times_s if math.isfinite(time_s))
    longest = max(done, default=60.0)
    unit_s, unit = (1.0, "s") if longest < 300 else (60.0, "min") if longest < 10800 else (3600.0, "h")
    ranks = sorted({round(i * (len(done) - 1) / _POINTS) for i in range(_POINTS + 1)}) if done else []
    figure.add_scatter(
        x=[0.0, *(done[rank] / unit_s for rank in ranks)],
        y=[0.0, *(100 * (rank + 1) / len(times_s) for rank in ranks)],
        mode="lines",
        line={"shape": "hv", "width": 2.5, "color": colour},
        fill="tozeroy",
        hovertemplate="%{y:.0f} %<extra></extra>",
    )
    for percent in (50, 90):
        figure.add_hline(y=percent, line={"color": QUIET, "width": 1, "dash": "dot"})
    figure.update_xaxes(ticksuffix=f" {unit}", rangemode="tozero")
    figure.update_yaxes(range=[0, 104], tickvals=[0, 50, 90, 100], ticksuffix=" %")
    return figure


def _outcome(run: Run) -> str:
    if run.outcome == "promoted":
        return "promoted"
    return "stopped by a deadline" if run.signal == "deadline" else "stopped as harmful"
