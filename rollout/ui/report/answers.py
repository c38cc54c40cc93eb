"""Pictures of a whole release's counts, with one bar for each version or key."""

from collections.abc import Sequence

import plotly.graph_objects as go

from rollout.explain.timeline import SignalTick, Timeline
from rollout.format import count, share
from rollout.judge import Pair
from rollout.judge.words import share_of, tally
from rollout.signals.catalogue import ReportPicture
from rollout.ui.report.picture import Picture, arms, both, compared, ratio, total, totals
from rollout.ui.report.style import CANARY, FAIL, QUIET, STABLE, new_figure

_MOST_KEYS = 20


def by_key(release: Timeline, family: str, drawn: ReportPicture) -> Picture | None:
    """Shares of the keys that differ most, such as bounds or classes; None: none was judged."""
    names = sorted(_keyed(release, family), key=lambda name: _gap(release.signals[name]), reverse=True)[:_MOST_KEYS]
    if not names:
        return None
    keys = {name: name.partition(":")[2] for name in names}
    labels = {name: drawn.bar.format(key=key) for name, key in sorted(keys.items(), key=lambda item: _natural(item[1]))}
    figure = _bars(release, labels, labelled=drawn.has_numbers)
    failed_signal = release.failed_signal
    if failed_signal and failed_signal.signal in labels and not drawn.has_numbers:
        highest = max(ratio(pair) for pair in totals(release.signals[failed_signal.signal]))
        figure.add_annotation(
            x=labels[failed_signal.signal],
            y=100 * highest,
            text="decided",
            font={"color": FAIL},
            arrowcolor=FAIL,
            ay=-28,
        )
    return Picture(
        key=family,
        title=drawn.title,
        caption=f"{drawn.caption} {_most_different(release, names)}",
        figure=figure,
        legend=both(release),
        height=240,
    )


def the_good_ones(release: Timeline, signal: str, drawn: ReportPicture) -> Picture | None:
    """Shares of events that were not bad, such as right answers; None: nothing was counted."""
    ticks = release.signals.get(signal)
    if ticks is None:
        return None
    wrong = [(name, total(pairs), colour) for name, pairs, colour in arms(release, ticks)]
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
        key=signal,
        title=drawn.title,
        caption=drawn.caption,
        figure=figure,
        legend=(),
        height=140,
    )


def against_its_limit(release: Timeline, signal: str, drawn: ReportPicture) -> Picture | None:
    """The canary's share beside its limit; None: nothing was counted, or there is no limit."""
    rule = release.spec.judge_config().rules.get(signal)
    _, canary = totals(release.signals.get(signal, ()))
    if rule is None or rule.limit is None or not canary.total:
        return None
    words = release.spec.words(signal, stable=release.stable)
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
        x=100 * rule.limit,
        line={"color": FAIL, "width": 1.5, "dash": "dash"},
        annotation={"text": "allowed", "font": {"color": FAIL}, "yanchor": "top"},
    )
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(range=[0, max(130 * rule.limit, 110 * ratio(canary))], ticksuffix=" %")
    figure.update_yaxes(range=[-0.4, 0.9], showgrid=False, automargin=True)  # room for the limit's name
    return Picture(
        key=signal,
        title=drawn.title,
        caption=(
            f"Share of the {words.unit} that {words.event}: {share_of(canary)} of {count(canary.total)}; "
            f"{share(rule.limit)} are allowed."
        ),
        figure=figure,
        legend=(),
        height=140,
    )


def _bars(release: Timeline, labels: dict[str, str], *, labelled: bool) -> go.Figure:
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


def _gap(ticks: Sequence[SignalTick]) -> float:
    stable, canary = totals(ticks)
    return abs(ratio(stable) - ratio(canary))


def _most_different(release: Timeline, names: list[str]) -> str:
    """The counts of the failed signal if it is among `names`, else of the one that differs most, in words."""
    failed = release.failed_signal.signal if release.failed_signal else None
    name = failed if failed in names else max(names, key=lambda name: _gap(release.signals[name]))
    return compared(release, name, release.signals[name])


def _keyed(release: Timeline, family: str) -> list[str]:
    return [name for name in release.signals if name.startswith(f"{family}:")]


def _natural(label: str) -> tuple[float, str]:
    """Sort key: numbers by value, before words."""
    return (float(label), "") if label.isdecimal() else (float("inf"), label)


def _brief(pair: Pair) -> str:
    """A share with few digits, for the top of a bar."""
    bad = ratio(pair)
    return share(float(f"{bad:.1g}") if bad < 0.01 else bad)
