"""One style for all pictures: colours, axes, and common marks.

Colours of text, grid and paper come from the page's stylesheet, so that pictures follow light and dark mode.
"""

from collections.abc import Iterable

import plotly.graph_objects as go

from rollout.explain.timeline import Decision, Timeline

STABLE, CANARY, FAIL, QUIET = "#2f7fc1", "#d97706", "#d9412f", "#76808b"  # each readable on white and on black
_CHARACTER = 0.022  # width of a letter, as a share of the narrowest picture


class Clock:
    """Time since the release was requested, in a unit that suits its length."""

    def __init__(self, release: Timeline) -> None:
        lasted_s = release.seen_s - release.requested_s
        self._zero_s = release.requested_s
        self._unit_s, self.unit = (1.0, "s") if lasted_s < 300 else (60.0, "min") if lasted_s < 10800 else (3600.0, "h")
        self.range = [0.0, max(lasted_s, 1.0) / self._unit_s]

    def width(self, name: str) -> float:
        """Width of `name` on the axis of the narrowest picture, in the clock's unit."""
        return _CHARACTER * (len(name) + 1) * self.range[1]

    def x(self, at_s: float) -> float:
        return (at_s - self._zero_s) / self._unit_s

    def xs(self, times: Iterable[float]) -> list[float]:
        return [self.x(at_s) for at_s in times]


def new_figure(clock: Clock | None) -> go.Figure:
    """An empty figure in the report's style; with `clock`, over time."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12},
        margin={"l": 52, "r": 12, "t": 12, "b": 30 if clock is None else 48},
        showlegend=False,
        hovermode="x unified",
        hoverlabel={"bgcolor": "#20262e", "font": {"color": "#ffffff"}, "bordercolor": "#20262e"},
        dragmode=False,
    )
    gap = {"ticks": "outside", "ticklen": 5, "tickcolor": "rgba(0,0,0,0)"}
    figure.update_xaxes(fixedrange=True, zeroline=False, showgrid=False, **gap)
    figure.update_yaxes(fixedrange=True, zeroline=False, **gap)
    if clock:
        figure.update_xaxes(
            range=clock.range, ticksuffix=f" {clock.unit}", title={"text": "since it was requested", "standoff": 6}
        )
    return figure


def name_steps(figure: go.Figure, clock: Clock, release: Timeline) -> None:
    """Write the name of each step above its start, if there is room for it even on a phone."""
    free_until = clock.range[1]
    if release.end and not _is_named_after(clock, release.end):
        free_until = clock.x(release.end.at_s) - clock.width(release.outcome)
    for step in release.steps:
        begin, end = clock.x(step.from_s), clock.x(step.until_s or release.seen_s)
        if begin + clock.width(step.name) <= min(end, free_until):
            figure.add_annotation(
                x=begin,
                y=100,
                text=f" {step.name}",
                font={"color": QUIET},
                showarrow=False,
                xanchor="left",
                yanchor="bottom",
            )


def mark_end(figure: go.Figure, clock: Clock, release: Timeline) -> None:
    """Draw a line at the time of the outcome, with its name on the side where there is room."""
    if release.end is None:
        return
    colour = QUIET if release.outcome in ("promoted", "restored") else FAIL
    figure.add_vline(
        x=clock.x(release.end.at_s),
        line={"color": colour, "width": 1.5, "dash": "dot"},
        annotation={
            "text": f" {release.outcome.replace('_', ' ')} ",
            "font": {"color": colour},
            "xanchor": "left" if _is_named_after(clock, release.end) else "right",
            "y": 1,
            "yanchor": "top",
        },
    )


def _is_named_after(clock: Clock, end: Decision) -> bool:
    return clock.x(end.at_s) + clock.width(end.title) < clock.range[1]


def faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.36)"
