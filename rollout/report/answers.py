"""Pictures of what both versions answered over the whole release: how fast, which classes, how often right. Pure."""

import plotly.graph_objects as go

from rollout.judge import Pair
from rollout.judge.words import share_of
from rollout.numerals import count, share
from rollout.report.look import CANARY, FAIL, QUIET, STABLE, new_figure
from rollout.report.picture import Picture, arms, both, compared, ratio, total, totals
from rollout.view import ReleaseView, SignalSeries
from rollout.wording import signal_words, tally

_MOST_CLASSES = 20


def slow_answers(release: ReleaseView) -> Picture | None:
    """Shares slower than each bound; None where no latency was judged."""
    names = sorted(_family(release, "latency"), key=lambda name: float(name.partition(":")[2]))
    if not names:
        return None
    return Picture(
        key="latency",
        title="Slow answers",
        caption=f"Share of answers slower than each bound. {_most_different(release, names)}",
        figure=_bars(release, {name: f"> {name.partition(':')[2]} ms" for name in names}, labelled=True),
        legend=both(release),
        height=240,
    )


def predicted_classes(release: ReleaseView) -> Picture | None:
    """Shares of the classes that differ most; None where no class was judged."""
    names = sorted(_family(release, "class"), key=lambda name: _gap(release.signals[name]), reverse=True)[
        :_MOST_CLASSES
    ]
    if not names:
        return None
    labels = {name: name.partition(":")[2] for name in sorted(names, key=lambda name: _natural(name.partition(":")[2]))}
    figure = _bars(release, labels, labelled=False)
    accusation = release.accusation
    if accusation and accusation.signal in labels:
        highest = max(ratio(pair) for pair in totals(release.signals[accusation.signal]))
        figure.add_annotation(
            x=labels[accusation.signal], y=100 * highest, text="decided", font={"color": FAIL}, arrowcolor=FAIL, ay=-28
        )
    return Picture(
        key="classes",
        title="What was predicted",
        caption=f"Share of each class among the predictions. {_most_different(release, names)}",
        figure=figure,
        legend=both(release),
        height=240,
    )


def right_answers(release: ReleaseView) -> Picture | None:
    """Shares that were right; None where no label came back."""
    series = release.signals.get("wrong_label")
    if series is None:
        return None
    wrong = [(name, total(pairs), colour) for name, pairs, colour in arms(release, series)]
    known = [(name, Pair(pair.total - pair.bad, pair.total), colour) for name, pair, colour in wrong if pair.total]
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


def unlike_stable(release: ReleaseView) -> Picture | None:
    """Share of copied requests that the canary answered unlike stable; None where none were compared."""
    series, plan = release.signals.get("disagreement"), release.spec.signals.disagreement
    canary = total(series.canary) if series else Pair(0, 0)
    if plan is None or not canary.total:
        return None
    words = signal_words("disagreement", release.spec, stable=release.stable)
    figure = new_figure(None)
    figure.add_bar(
        y=[release.canary],
        x=[100 * ratio(canary)],
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
    figure.update_xaxes(range=[0, max(130 * plan.at_most, 110 * ratio(canary))], ticksuffix=" %")
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
        pairs = [totals(release.signals[signal])[side] for signal in labels]
        figure.add_bar(
            x=list(labels.values()),
            y=[100 * ratio(pair) for pair in pairs],
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


def _gap(series: SignalSeries) -> float:
    stable, canary = totals(series)
    return abs(ratio(stable) - ratio(canary))


def _most_different(release: ReleaseView, names: list[str]) -> str:
    """The accused signal if it is one of `names`, or else the one that differs most, in words."""
    accused = release.accusation.signal if release.accusation else None
    name = accused if accused in names else max(names, key=lambda name: _gap(release.signals[name]))
    return compared(release, name, release.signals[name])


def _family(release: ReleaseView, family: str) -> list[str]:
    return [name for name in release.signals if name.startswith(f"{family}:")]


def _natural(label: str) -> tuple[float, str]:
    """Numbers by value, before words."""
    return (float(label), "") if label.isdecimal() else (float("inf"), label)


def _brief(pair: Pair) -> str:
    """A share in as few digits as tell it from its neighbour."""
    bad = ratio(pair)
    return share(float(f"{bad:.1g}") if bad < 0.01 else bad)
