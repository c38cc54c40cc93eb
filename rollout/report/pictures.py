"""The report's pictures of one release, as Plotly figures: those over time, and all in their order. Pure.

Stable and canary keep their colours in every picture.
"""

from collections.abc import Callable
from itertools import groupby
from math import isfinite

from rollout.judge import Pair
from rollout.numerals import share
from rollout.report.answers import predicted_classes, right_answers, slow_answers, unlike_stable
from rollout.report.look import CANARY, FAIL, QUIET, STABLE, Clock, faint, mark_end, name_steps, new_figure
from rollout.report.picture import Picture, arms, both, compared, total
from rollout.view import ReleaseView
from rollout.wording import signal_words, tally

_FAMILY_COLOURS = {  # after Okabe & Ito, told apart with any colour vision
    "errors": "#cc79a7",
    "affected_users": "#cc79a7",  # in the place of the errors
    "watched_errors": "#cc79a7",  # ... after promotion
    "latency": "#009e73",
    "class": "#56b4e9",
    "low_confidence": QUIET,
    "wrong_label": "#a38f00",
    "disagreement": "#7b61c9",
}
_MOST_BINS = 24  # points of a line over time; more would show noise


def pictures(release: ReleaseView) -> list[Picture]:
    """Every picture that there is data for."""
    makers: tuple[Callable[[ReleaseView], Picture | None], ...] = (
        _weight,
        _evidence,
        _errors,
        slow_answers,
        predicted_classes,
        right_answers,
        unlike_stable,
    )
    return [picture for make in makers if (picture := make(release))]


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
        legend=(*both(release), *shadow),
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
    series = release.failures
    if not series.at_s:
        return None
    clock = Clock(release)
    figure = new_figure(clock)
    for name, pairs, colour in arms(release, series):
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
        caption=f"Share of requests that failed, over time. {compared(release, 'errors', series)}",
        figure=figure,
        legend=both(release),
        height=240,
    )


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
    return [(ticks_in[-1][0], total(pair for _, pair in ticks_in)) for ticks_in in bins]


def _steps_in_words(release: ReleaseView) -> str:
    taken = ", ".join(step.name for step in release.steps) or "none"
    return f"Steps taken: {taken}; {release.outcome.replace('_', ' ')}."
