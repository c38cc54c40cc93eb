"""The rows that compare the canary with stable: by the gateway's counts and by the answers."""

from collections.abc import Sequence

from contract import metrics as m
from monitoring.grafana.dashboards.board import Row
from monitoring.grafana.dashboards.chosen_release import COLORS, OF_CANARY, OF_STABLE, REPORT, of_release
from monitoring.grafana.dashboards.needs import Needs
from monitoring.grafana.dashboards.panels import graph, grouped
from monitoring.grafana.dashboards.promql import COPY_DURATION, DURATION, quantile
from monitoring.grafana.dashboards.signal_graph import SignalGraph
from monitoring.grafana.dashboards.style import BAD, GOOD, WARN, About, Panel, Query

_LATE = m.FEEDBACK.name  # its signal has no events until feedback arrives


def at_the_gateway(signals: Sequence[SignalGraph]) -> Row:
    """The signals that the gateway counts, such as errors and latency."""
    duration = About(
        "99 % answered within",
        "Interpolated between bucket bounds, so only roughly comparable near one.",
        "ms",
        ((None, GOOD), (100, WARN), (250, BAD)),
        "KanariaLatencyBurnedByVersion",
        Needs.RELEASE,
        REPORT,
    )
    return Row(
        "Canary against stable, at the gateway",
        (
            *(_of_signal(signal) for signal in signals if signal.place == "gateway"),
            _pair(
                duration,
                quantile(0.99, DURATION, OF_CANARY),
                quantile(0.99, DURATION, OF_STABLE),
                quantile(0.99, COPY_DURATION),
            ),
        ),
    )


def in_the_answers(signals: Sequence[SignalGraph]) -> Row:
    """The signals that versions count from their answers. If each value is a signal, one panel below shows all."""
    ours = [signal for signal in signals if signal.place == "answers"]
    return Row(
        "Canary against stable, in the answers",
        (
            *(_of_signal(signal) for signal in ours if signal.counts != "values"),
            *(_all_values(signal) for signal in ours if signal.counts == "values"),
        ),
    )


def _of_signal(signal: SignalGraph) -> Panel:
    needs = Needs.CANARY_LABELS if signal.series == _LATE else Needs.SHADOW if signal.is_of_copies else Needs.RELEASE
    about = About(
        signal.title,
        signal.description,
        signal.unit,
        ((None, GOOD), (signal.warn, WARN), (signal.bad, BAD)),
        signal.runbook,
        needs,
        REPORT,
    )
    if signal.is_of_copies:  # for stable this would only compare stable with itself
        return graph(about, Query(signal.expr(OF_CANARY), "canary $canary"), span=8, colors=COLORS, has_limits=True)
    return _pair(about, signal.expr(OF_CANARY), signal.expr(OF_STABLE), signal.expr_of_copies)


def _all_values(signal: SignalGraph) -> Panel:
    return grouped(
        About(
            signal.title,
            signal.description,
            "percentunit",
            ((None, "blue"),),
            signal.runbook,
            Needs.RELEASE,
            REPORT,
        ),
        Query(signal.expr('version=~"$stable|$canary"'), form="table"),
        rows=signal.label,
        columns="version",
        span=24,
    )


def _pair(about: About, canary: str, stable: str, copies: str | None = None) -> Panel:
    """Both versions in one graph, and the copies in the shadow step."""
    queries = [Query(stable, "stable $stable"), Query(canary, "canary $canary")]
    if copies is not None:
        queries.append(Query(of_release(copies), "copies to $canary", Needs.SHADOW))
    return graph(about, *queries, span=8, colors=COLORS)
