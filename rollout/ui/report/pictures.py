"""The report's pictures of one release as Plotly figures: pictures over time, and the order of all pictures.

Stable and canary have the same colours in every picture.
"""

from collections.abc import Callable, Mapping
from itertools import groupby
from math import isfinite
from typing import TypeVar

from rollout.explain.format import clock as clock_time
from rollout.explain.format import one_line
from rollout.explain.timeline import Timeline
from rollout.explain.why import means
from rollout.format import share, span
from rollout.judge import Judgement, Pair, SignalJudgement, number_words
from rollout.judge.types import Numbers
from rollout.judge.words import tally
from rollout.signals.catalogue import PictureForm, ReportPicture, catalogue
from rollout.ui.report.answers import against_its_limit, by_key, the_good_ones
from rollout.ui.report.picture import Picture, arms, both, compared, total
from rollout.ui.report.style import CANARY, FAIL, QUIET, STABLE, Clock, faint, mark_end, name_steps, new_figure

Counts = TypeVar("Counts")

_NO_NUMBERS = Numbers(0, 0.0, 0.0)
_MOST_BINS = 24  # points of a line over time; more would show noise


def pictures(release: Timeline) -> list[Picture]:
    """Every picture for which there is data."""
    makers: Mapping[PictureForm, Callable[[Timeline, str, ReportPicture], Picture | None]] = {
        "over time": _over_time,
        "by key": by_key,
        "the good ones": the_good_ones,
        "against its limit": against_its_limit,
        "mean over time": _mean_over_time,
    }
    own = (row for name in release.spec.signals.own if (row := release.spec.signals.row(name)))
    of_signals = (
        makers[row.picture.form](release, row.name, row.picture)
        for row in (*catalogue().rows, *own)
        if row.picture is not None
    )
    return [picture for picture in (_weight(release), _evidence(release), *of_signals) if picture]


def _weight(release: Timeline) -> Picture | None:
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
        legend=(*both(release), *shadow),
        height=230,
        is_wide=True,
    )


def _evidence(release: Timeline) -> Picture | None:
    if not release.judgements:
        return None
    clock = Clock(release)
    figure = new_figure(clock)
    for name in _strongest_by_family(release):
        ticks, row = release.signals[name], release.spec.signals.row(name)
        figure.add_scatter(
            x=clock.xs(tick.window.end_s for tick in ticks),
            y=[_reached(tick.evidence) for tick in ticks],
            name=release.spec.words(name).title,
            mode="lines",
            line={"width": 1.8, "color": row.colour if row else QUIET},
            customdata=[(tick.evidence.log_e, tick.evidence.threshold) for tick in ticks],
            hovertemplate="log e %{customdata[0]:.1f}, alone enough at %{customdata[1]:.1f}",
        )
    figure.add_scatter(
        x=clock.xs(at_s for at_s, _ in release.judgements),
        y=[_reached(judgement) for _, judgement in release.judgements],
        name="all together",
        mode="lines",
        line={"width": 3.5, "color": CANARY},
        customdata=[(judgement.log_e, judgement.threshold) for _, judgement in release.judgements],
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
            f"{_crossed(release)}"
        ),
        figure=figure,
        legend=tuple((trace.name, trace.line.color) for trace in figure.data),
        height=300,
        is_wide=True,
    )


def _crossed(release: Timeline) -> str:
    """That the line was crossed before the decision, and why; empty: it was not."""
    crossed = release.crossed_before
    if crossed is None:
        return ""
    at_s, why = crossed
    end = release.end
    before = f", {span(end.at_s - at_s)} before it was {release.outcome.replace('_', ' ')}" if end else ""
    return f" It was first crossed at {clock_time(at_s)} UTC{before}. Why the release went on: {one_line(why)}."


def _over_time(release: Timeline, signal: str, drawn: ReportPicture) -> Picture | None:
    """The share of bad events of a signal without keys."""
    ticks = release.failures if signal == "errors" else release.signals.get(signal)
    if not ticks:
        return None
    clock = Clock(release)
    figure = new_figure(clock)
    at_s = [tick.window.end_s for tick in ticks]
    for name, pairs, colour in arms(release, ticks):
        binned = [(end_s, pair) for end_s, pair in _binned(at_s, pairs) if pair.total]
        figure.add_scatter(
            x=clock.xs(end_s for end_s, _ in binned),
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
        key=signal,
        title=drawn.title,
        caption=f"{drawn.caption} {compared(release, signal, ticks)}",
        figure=figure,
        legend=both(release),
        height=240,
    )


def _mean_over_time(release: Timeline, signal: str, drawn: ReportPicture) -> Picture | None:
    """The means of a signal whose events are numbers."""
    ticks = release.signals.get(signal)
    rule = release.spec.judge_config().rules.get(signal)
    if not ticks or rule is None or rule.numbers is None:
        return None
    clock, numbers = Clock(release), rule.numbers
    figure = new_figure(clock)
    at_s = [tick.window.end_s for tick in ticks]
    for name, side, colour in ((release.stable, 0, STABLE), (release.canary, 1, CANARY)):
        every = [tick.window.numbers[side] if tick.window.numbers else _NO_NUMBERS for tick in ticks]
        binned = [(end_s, sums) for end_s, sums in _binned_numbers(at_s, every) if sums.total]
        figure.add_scatter(
            x=clock.xs(end_s for end_s, _ in binned),
            y=[number_words.shown(sums.mean, numbers) for _, sums in binned],
            name=name,
            mode="lines+markers",
            line={"width": 2, "color": colour},
            marker={"size": 5, "color": colour},
            hovertemplate=f"%{{y:.3g}} {numbers.unit}",
        )
    figure.update_yaxes(rangemode="tozero", ticksuffix=f" {numbers.unit}")
    return Picture(
        key=signal,
        title=drawn.title,
        caption=f"{drawn.caption} {means(signal, ticks[-1].evidence, release)}.",
        figure=figure,
        legend=both(release),
        height=240,
    )


def _strongest_by_family(release: Timeline) -> list[str]:
    """For each family the signal with the most evidence of harm; the failed signal in any case."""
    failed = release.failed_signal.signal if release.failed_signal else None

    def closeness(name: str) -> tuple[bool, float]:
        return name == failed, max(_reached(tick.evidence) for tick in release.signals[name])

    judged = (name for name, ticks in release.signals.items() if isfinite(ticks[-1].evidence.threshold))
    families = groupby(sorted(judged), key=lambda name: name.partition(":")[0])
    return sorted((max(names, key=closeness) for _, names in families), key=closeness, reverse=True)


def _reached(evidence: SignalJudgement | Judgement) -> float:
    """Evidence in percent of the threshold."""
    return 100 * max(0.0, evidence.log_e) / evidence.threshold


def _binned(at_s: list[float], pairs: list[Pair]) -> list[tuple[float, Pair]]:
    """Sums over equal spans of time, each at the end of its span: ratios of sums, never means of ratios."""
    return [(end_s, total(some)) for end_s, some in _in_bins(at_s, pairs)]


def _binned_numbers(at_s: list[float], every: list[Numbers]) -> list[tuple[float, Numbers]]:
    return [(end_s, sum(some, _NO_NUMBERS)) for end_s, some in _in_bins(at_s, every)]


def _in_bins(at_s: list[float], counts: list[Counts]) -> list[tuple[float, list[Counts]]]:
    """The counts in equal spans of time, each at the end of its span."""
    if not at_s:
        return []
    width_s = (at_s[-1] - at_s[0]) / _MOST_BINS or 1.0
    ticks = list(zip(at_s, counts, strict=True))
    bins = [list(group) for _, group in groupby(ticks, key=lambda tick: int((tick[0] - at_s[0]) / width_s))]
    return [(ticks_in[-1][0], [counted for _, counted in ticks_in]) for ticks_in in bins]


def _steps_in_words(release: Timeline) -> str:
    taken = ", ".join(step.name for step in release.steps) or "none"
    return f"Steps taken: {taken}; {release.outcome.replace('_', ' ')}."
