"""Drift as Prometheus series, made at each scrape from the newest results on disk.

So they outlive whoever measured, and grow old visibly. The controller's process shows them. Imports nothing slow.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import nan
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from monitoring.drift.result import ColumnDrift, DriftResult, Kind, State, read_result

ALWAYS_SHOWN = ("label", "confidence", "error")
MOST_COLUMNS = 10  # shown by name besides these; the worst ones. What is left is one series more
REST = "rest"  # of these the worst
NOT_RUN = "not_run"
STATES = (*(state.value for state in State), NOT_RUN)
_SIGN = {"up": 1.0, "down": -1.0, "shape": 0.0}


class DriftCollector(Collector):
    """Registered with whatever registry is scraped.

    Args:
        results: where the newest result of each kind lies.
        versions: gives the version of each kind whose series there are: a result about another one is history.
    """

    def __init__(self, results: Mapping[Kind, Path], versions: Callable[[], Mapping[Kind, str]]) -> None:
        self._results, self._versions = results, versions

    def collect(self) -> Iterable[Metric]:
        families = _Families()
        for kind, version in self._versions().items():
            result = read_result(self._results[kind])
            if result is not None and result.version == version:
                families.add(result)
            else:
                families.add_not_run(kind, version)
        return families.all()


class _Families:
    """One gauge for each thing that is said of a comparison or of a column of it."""

    def __init__(self) -> None:
        def of_run(name: str, text: str, *more: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"kanaria_drift_{name}", text, labels=["kind", "version", *more])

        self.state = of_run("state", "1 for what the newest report came to", "state")
        self.share = of_run("share", "Drifted columns of all columns, 0-1")
        self.rows = of_run("rows", "Rows that the newest report looked at")
        self.labelled_rows = of_run("labelled_rows", "Rows whose truth was known to the newest report")
        self.last_run = of_run("last_run_timestamp_seconds", "When the newest report was made; 0: never")
        self.score = of_run("score", "Distance of a column from its reference, 0-1; higher is worse", "column")
        self.threshold = of_run("threshold", "Score from which a column may count as drifted", "column")
        self.direction = of_run("direction", "1: values rose, -1: they fell, 0: neither", "column")
        self.drifted = of_run("drifted", "1 when the score is over its threshold and no chance", "column")

    def all(self) -> Iterator[Metric]:
        yield from vars(self).values()

    def add(self, result: DriftResult) -> None:
        run = (result.kind, result.version)
        for state in STATES:
            self.state.add_metric((*run, state), float(state == result.state.value))
        self.share.add_metric(run, nan if result.state is State.TOO_FEW_ROWS else result.share)
        self.rows.add_metric(run, result.rows)
        self.labelled_rows.add_metric(run, result.labelled_rows)
        self.last_run.add_metric(run, result.at_s)
        shown = {column.column: column for column in bounded(result.columns)}
        for name in dict.fromkeys((*ALWAYS_SHOWN, *shown)):
            self._add_column((*run, name), shown.get(name))

    def add_not_run(self, kind: Kind, version: str) -> None:
        run = (kind, version)
        for state in STATES:
            self.state.add_metric((*run, state), float(state == NOT_RUN))
        self.share.add_metric(run, nan)
        for gauge in (self.rows, self.labelled_rows, self.last_run):
            gauge.add_metric(run, 0.0)
        for name in (*ALWAYS_SHOWN, REST):
            self._add_column((*run, name), None)

    def _add_column(self, labels: tuple[str, ...], column: ColumnDrift | None) -> None:
        """A column that nothing is known of has no number, which is not the number 0."""
        self.score.add_metric(labels, column.score if column else nan)
        self.threshold.add_metric(labels, column.threshold if column else nan)
        self.direction.add_metric(labels, _SIGN[column.direction] if column else nan)
        self.drifted.add_metric(labels, column.has_drifted if column else 0.0)


def bounded(columns: tuple[ColumnDrift, ...]) -> tuple[ColumnDrift, ...]:
    """What is shown by name of `columns`, the worst first, and the worst of all others as `REST`."""
    named = [column for column in columns if column.column in ALWAYS_SHOWN]
    others = [column for column in columns if column.column not in ALWAYS_SHOWN]
    rest = [column.model_copy(update={"column": REST}) for column in others[MOST_COLUMNS:][:1]]
    return (*named, *others[:MOST_COLUMNS], *rest)
