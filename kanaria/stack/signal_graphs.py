"""The signals for the boards: rollout defines the signals, monitoring the queries."""

from monitoring.grafana.dashboards.signal_graph import Counted, SignalGraph
from rollout.signals.catalogue import BoardGraph, Signal, catalogue
from rollout.signals.counting import Buckets, Counter, EachValue, Outcomes, Side, Steps


def signal_graphs() -> tuple[SignalGraph, ...]:
    """Every signal that has a graph, in the order of the catalogue."""
    return tuple(
        _graph(row, row.graph, row.counter)
        for row in catalogue().rows
        if row.graph is not None and row.counter is not None
    )


def _graph(row: Signal, drawn: BoardGraph, counter: Counter) -> SignalGraph:
    return SignalGraph(
        title=drawn.title,
        description=drawn.description,
        warn=drawn.warn,
        bad=drawn.bad,
        runbook=drawn.runbook,
        place="gateway" if counter.side is Side.GATEWAY else "answers",
        counts=_counts(counter),
        series=counter.histogram if isinstance(counter, Buckets | Steps) else counter.series,
        label=counter.label,
        outcomes=counter.bad if isinstance(counter, Outcomes) else "",
        bound=drawn.key,
        is_of_copies=row.is_of_copies,
    )


def _counts(counter: Counter) -> Counted:
    if isinstance(counter, Buckets):
        return counter.bad
    return "values" if isinstance(counter, EachValue) else "median" if isinstance(counter, Steps) else "outcomes"
