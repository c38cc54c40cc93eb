"""The report's pictures of one release, as Plotly figures. Pure: numbers in, figures out.

Stable and canary keep their colours in every picture.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from math import isfinite

import plotly.graph_objects as go

from rollout.judge import Pair
from rollout.judge.words import share_of
from rollout.numerals import count, share
from rollout.report.look import CANARY, FAIL, QUIET, STABLE, Clock, faint, mark_end, name_steps, new_figure
from rollout.view import ReleaseView, SignalSeries
from rollout.wording import signal_words, tally

_FAMILY_COLOURS = {  # after Okabe & Ito, told apart with any colour vision
    "errors": "#cc79a7",
    "affected_users": "#cc79a7",  # in the place of the errors
    "latency": "#009e73",
    "class": "#56b4e9",
    "low_confidence": QUIET,
    "wrong_label": "#a38f00",
    "disagreement": "#7b61c9",
}
_MOST_BINS = 24  # points of a line over time; more would show noise
_MOST_CLASSES = 20


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure with the words that stand under it and for it."""

    key: str
    title: str
    caption: str
    figure: go.Figure
    legend: tuple[tuple[str, str], ...]  # (name, colour); in HTML it fits any width
    height: int  # CSS pixels
    is_wide: bool = False


def pictures(release: ReleaseView) -> list[Picture]:
    """Every picture that there is data for."""
    makers: tuple[Callable[[ReleaseView], Picture | None], ...] = (
        _weight,
        _evidence,
        _errors,
        _latency,
        _classes,
        _labels,
        _disagreement,
    )
    return [picture for make in makers if (picture := make(release))]


# ---- over time


def _weight(release: ReleaseView) -> Picture | None:
    if not release.weights:
        return None
    clock = Clock(release)
    at_s = [release.requested_s, *(at_s for at_s, _, _ in release.weights), max(release.seen_s, release.weights[-1][0])]
    percent = [0, *(percent for _, percent, _ in release.weights), release.weights[-1][1]]
    figure = new_figure(clock)
    for name, values, colour in (
        (release.canary, percent, CANARY),
        (release.stable, [round(100 - value, 2) for value in percent], STABLE),
    ):
        figure.add_scatter(
            x=clock.xs(at_s),
            y=values,
            name=name,
            stackgroup="traffic",
            line={"shape": "hv", "width": 1.5, "color": colour},
            fillcolor=faint(colour),
            hovertemplate="%{y} %",
        )
    for step in release.steps:
        if step.mirror:
            figure.add_vrect(
                x0=clock.x(step.from_s),
                x1=clock.x(step.until_s or release.seen_s),
                fillcolor=faint(QUIET),
                line_width=0,
            )
    name_steps(figure, clock, release)
    mark_end(figure, clock, release)
    figure.update_yaxes(range=[0, 116], dtick=25, ticksuffix=" %")
    shadow = [("shadow: copies only", QUIET)] if any(step.mirror for step in release.steps) else []
    return Picture(
        key="weight",
        title="Who answered the users",
        caption=f"Share of the traffic over time. {_steps_in_words(release)}",
        figure=figure,
        legend=(*_both(release), *shadow),
        height=230,
        is_wide=True,
    )


def _evidence(release: ReleaseView) -> Picture | None:
    if not release.verdicts or release.threshold is None:
        return None
    clock = Clock(release)
    figure = new_figure(clock)
    for name in _strongest_by_family(release):
        series, words = release.signals[name], signal_words(name, release.spec)
        figure.add_scatter(
            x=clock.xs(series.at_s),
            y=[_reached(*point) for point in zip(series.log_e, series.threshold, strict=True)],
            name=words.title,
            mode="lines",
            line={"width": 1.8, "color": _FAMILY_COLOURS.get(name.partition(":")[0], QUIET)},
            customdata=list(zip(series.log_e, series.threshold, strict=True)),
            hovertemplate="log e %{customdata[0]:.1f}, alone enough at %{customdata[1]:.1f}",
        )
    figure.add_scatter(
        x=clock.xs(at_s for at_s, _, _ in release.verdicts),
        y=[_reached(log_e, release.threshold) for _, _, log_e in release.verdicts],
        name="all together",
        mode="lines",
        line={"width": 3.5, "color": CANARY},
        customdata=[(log_e, release.threshold) for _, _, log_e in release.verdicts],
        hovertemplate="log e %{customdata[0]:.1f}, fails at %{customdata[1]:.1f}",
    )
    highest = max(max(trace.y, default=0.0) for trace in figure.data)
    figure.add_hline(
        y=100,
        line={"color": FAIL, "width": 1.5, "dash": "dash"},
        annotation={"text": "enough to roll back", "font": {"color": FAIL}, "yanchor": "bottom"},
        annotation_position="top left",
    )
    mark_end(figure, clock, release)
    figure.update_yaxes(range=[0, max(120.0, 1.08 * highest)], ticksuffix=" %")
    return Picture(
        key="evidence",
        title="Evidence that the canary is worse",
        caption=(
            "Share of the evidence that rolls the canary back: all signals together, and the strongest of each kind. "
            f"A harmless canary reaches the dashed line in at most {share(release.spec.alpha)} of all releases."
        ),
        figure=figure,
        legend=tuple((trace.name, trace.line.color) for trace in figure.data),
        height=300,
        is_wide=True,
    )


def _errors(release: ReleaseView) -> Picture | None:
    series = release.signals.get("errors")
    if series is None:
        return None
    clock = Clock(release)
    figure = new_figure(clock)
    for name, pairs, colour in _arms(release, series):
        binned = [(at_s, pair) for at_s, pair in _binned(series.at_s, pairs) if pair.total]
        figure.add_scatter(
            x=clock.xs(at_s for at_s, _ in binned),
            y=[100 * pair.bad / pair.total for _, pair in binned],
            name=name,
            mode="lines+markers",
            line={"width": 2, "color": colour},
            marker={"size": 5, "color": colour},
            customdata=[tally(pair) for _, pair in binned],
            hovertemplate="%{y:.2f} % (%{customdata})",
        )
    highest = max((max(trace.y, default=0.0) for trace in figure.data), default=0.0)
    figure.update_yaxes(range=[-0.02 * max(1.0, highest), max(1.0, 1.15 * highest)], ticksuffix=" %")
    return Picture(
        key="errors",
        title="Failed requests",
        caption=f"Share of requests that failed, over time. {_compared(release, 'errors')}",
        figure=figure,
        legend=_both(release),
        height=240,
    )


# ---- over the whole release


def _latency(release: ReleaseView) -> Picture | None:
    names = sorted(_family(release, "latency"), key=lambda name: float(name.partition(":")[2]))
    if not names:
        return None
    return Picture(
        key="latency",
        title="Slow answers",
        caption=f"Share of answers slower than each bound. {_compared(release, _most_different(release, names))}",
        figure=_bars(release, {name: f"> {name.partition(':')[2]} ms" for name in names}, labelled=True),
        legend=_both(release),
        height=240,
    )


def _classes(release: ReleaseView) -> Picture | None:
    names = sorted(_family(release, "class"), key=lambda name: _gap(release.signals[name]), reverse=True)[
        :_MOST_CLASSES
    ]
    if not names:
        return None
    labels = {name: name.partition(":")[2] for name in sorted(names, key=lambda name: _natural(name.partition(":")[2]))}
    figure = _bars(release, labels, labelled=False)
    accusation = release.accusation
    if accusation and accusation.signal in labels:
        highest = max(_ratio(pair) for pair in _totals(release.signals[accusation.signal]))
        figure.add_annotation(
            x=labels[accusation.signal], y=100 * highest, text="decided", font={"color": FAIL}, arrowcolor=FAIL, ay=-28
        )
    return Picture(
        key="classes",
        title="What was predicted",
        caption=f"Share of each class among the predictions. {_compared(release, _most_different(release, names))}",
        figure=figure,
        legend=_both(release),
        height=240,
    )


def _labels(release: ReleaseView) -> Picture | None:
    series = release.signals.get("wrong_label")
    if series is None:
        return None
    arms = [(name, _sum(pairs), colour) for name, pairs, colour in _arms(release, series)]
    known = [(name, Pair(pair.total - pair.bad, pair.total), colour) for name, pair, colour in arms if pair.total]
    if not known:
        return None
    figure = new_figure(None)
    figure.add_bar(
        y=[name for name, _, _ in known],
        x=[100 * pair.bad / pair.total for _, pair, _ in known],
        orientation="h",
        marker={"color": [colour for _, _, colour in known]},
        text=[f"{share_of(pair)} of {count(pair.total)}" for _, pair, _ in known],
        textposition="inside",
        insidetextanchor="start",
        insidetextfont={"color": "#0d1117"},
        hovertemplate="%{text}<extra></extra>",
    )
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(range=[0, 100], ticksuffix=" %")
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True)
    return Picture(
        key="labels",
        title="Right answers",
        caption="Where the truth came back: share of the predictions that were right.",
        figure=figure,
        legend=(),
        height=140,
    )


def _disagreement(release: ReleaseView) -> Picture | None:
    series, plan = release.signals.get("disagreement"), release.spec.signals.disagreement
    canary = _sum(series.canary) if series else Pair(0, 0)
    if plan is None or not canary.total:
        return None
    words = signal_words("disagreement", release.spec, stable=release.stable)
    figure = new_figure(None)
    figure.add_bar(
        y=[release.canary],
        x=[100 * _ratio(canary)],
        width=[0.5],
        orientation="h",
        marker={"color": CANARY},
        hovertemplate=f"{tally(canary)}<extra></extra>",
    )
    figure.add_vline(
        x=100 * plan.at_most,
        line={"color": FAIL, "width": 1.5, "dash": "dash"},
        annotation={"text": "allowed", "font": {"color": FAIL}, "yanchor": "top"},
    )
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(range=[0, max(130 * plan.at_most, 110 * _ratio(canary))], ticksuffix=" %")
    figure.update_yaxes(range=[-0.4, 0.9], showgrid=False, automargin=True)  # room for the limit's name
    return Picture(
        key="disagreement",
        title="Answers unlike stable's",
        caption=(
            f"Share of the {words.unit} that {words.event}: {share_of(canary)} of {count(canary.total)}; "
            f"{share(plan.at_most)} are allowed."
        ),
        figure=figure,
        legend=(),
        height=140,
    )


def _bars(release: ReleaseView, labels: dict[str, str], *, labelled: bool) -> go.Figure:
    """Stable and canary side by side for each signal."""
    figure = new_figure(None)
    for side, (name, colour) in enumerate(((release.stable, STABLE), (release.canary, CANARY))):
        pairs = [_totals(release.signals[signal])[side] for signal in labels]
        figure.add_bar(
            x=list(labels.values()),
            y=[100 * _ratio(pair) for pair in pairs],
            name=name,
            marker={"color": colour},
            text=[_brief(pair) for pair in pairs] if labelled else None,
            textposition="outside",
            textangle=0,
            textfont={"color": QUIET, "size": 10},
            constraintext="none",
            cliponaxis=False,
            customdata=[tally(pair) for pair in pairs],
            hovertemplate="%{y:.2f} % (%{customdata})",
        )
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.06)
    figure.update_xaxes(type="category", showgrid=False)
    highest = max((max(trace.y, default=0.0) for trace in figure.data), default=0.0)
    figure.update_yaxes(ticksuffix=" %", range=[0, max(1.0, 1.15 * highest)])
    return figure


# ---- numbers


def _arms(release: ReleaseView, series: SignalSeries) -> tuple[tuple[str, list[Pair], str], ...]:
    return (release.stable, series.stable, STABLE), (release.canary, series.canary, CANARY)


def _both(release: ReleaseView) -> tuple[tuple[str, str], ...]:
    return (release.stable, STABLE), (release.canary, CANARY)


def _strongest_by_family(release: ReleaseView) -> list[str]:
    """The signal of each family whose evidence came closest to failing the canary; the accused one in any case."""
    accused = release.accusation.signal if release.accusation else None

    def closeness(name: str) -> tuple[bool, float]:
        series = release.signals[name]
        return name == accused, max(
            (_reached(*point) for point in zip(series.log_e, series.threshold, strict=True)), default=0.0
        )

    judged = (name for name, series in release.signals.items() if isfinite(series.threshold[-1]))
    families = groupby(sorted(judged), key=lambda name: name.partition(":")[0])
    return sorted((max(names, key=closeness) for _, names in families), key=closeness, reverse=True)


def _reached(log_e: float, threshold: float) -> float:
    """Evidence in percent of what fails the canary."""
    return 100 * max(0.0, log_e) / threshold


def _binned(at_s: list[float], pairs: list[Pair]) -> list[tuple[float, Pair]]:
    """Sums over equal spans of time, each at its end: ratios of sums, never means of ratios."""
    if not at_s:
        return []
    width_s = (at_s[-1] - at_s[0]) / _MOST_BINS or 1.0
    ticks = list(zip(at_s, pairs, strict=True))
    bins = [list(group) for _, group in groupby(ticks, key=lambda tick: int((tick[0] - at_s[0]) / width_s))]
    return [(ticks_in[-1][0], _sum(pair for _, pair in ticks_in)) for ticks_in in bins]


def _sum(pairs: Iterable[Pair]) -> Pair:
    return sum(pairs, Pair(0, 0))


def _totals(series: SignalSeries) -> tuple[Pair, Pair]:
    return _sum(series.stable), _sum(series.canary)


def _ratio(pair: Pair) -> float:
    return pair.bad / pair.total if pair.total else 0.0


def _gap(series: SignalSeries) -> float:
    stable, canary = _totals(series)
    return abs(_ratio(stable) - _ratio(canary))


def _most_different(release: ReleaseView, names: list[str]) -> str:
    """The accused signal if it is one of `names`, or else the one that differs most."""
    accused = release.accusation.signal if release.accusation else None
    return accused if accused in names else max(names, key=lambda name: _gap(release.signals[name]))


def _family(release: ReleaseView, family: str) -> list[str]:
    return [name for name in release.signals if name.startswith(f"{family}:")]


def _natural(label: str) -> tuple[float, str]:
    """Numbers by value, before words."""
    return (float(label), "") if label.isdecimal() else (float("inf"), label)


# ---- words


def _compared(release: ReleaseView, signal: str) -> str:
    words = signal_words(signal, release.spec)
    stable, canary = _totals(release.signals[signal])
    return (
        f"{tally(canary)} {words.unit} of {release.canary} {words.event} ({share_of(canary)}), "
        f"{tally(stable)} of {release.stable} ({share_of(stable)})."
    )


def _brief(pair: Pair) -> str:
    """A share in as few digits as tell it from its neighbour."""
    ratio = _ratio(pair)
    return share(float(f"{ratio:.1g}") if ratio < 0.01 else ratio)


def _steps_in_words(release: ReleaseView) -> str:
    taken = ", ".join(step.name for step in release.steps) or "none"
    return f"Steps taken: {taken}; {release.outcome.replace('_', ' ')}."
