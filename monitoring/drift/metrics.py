"""Drift as Prometheus series, made at each scrape from the newest results on disk.

So they outlive the process that made the report, and their age is visible.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import nan
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from contract import metrics as m
from monitoring.drift.result import ColumnDrift, DriftResult, Kind, State, read_result

ALWAYS_SHOWN = ("label", "confidence", "error")
MOST_COLUMNS = 10  # columns shown by name, the worst first; all others are one series, `REST`
REST = "rest"  # the worst of the other columns
NOT_RUN = "not_run"
STATES = (*(state.value for state in State), NOT_RUN)
_SIGN = {"up": 1.0, "down": -1.0, "shape": 0.0}


class DriftCollector(Collector):
    """Collects the drift series for a scraped registry.

    Args:
        results: the path of the newest result of each kind.
        versions: returns the current version of each kind; a result about another version is not shown.
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
    """One gauge for each number about a comparison or about one of its columns."""

    def __init__(self) -> None:
        self.state = _family(m.DRIFT_STATE)
        self.share = _family(m.DRIFT_SHARE)
        self.rows = _family(m.DRIFT_ROWS)
        self.labelled_rows = _family(m.DRIFT_LABELLED_ROWS)
        self.last_run = _family(m.DRIFT_LAST_RUN)
        self.score = _family(m.DRIFT_SCORE)
        self.threshold = _family(m.DRIFT_THRESHOLD)
        self.direction = _family(m.DRIFT_DIRECTION)
        self.drifted = _family(m.DRIFT_DRIFTED)

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
        """Add one column; without a result its values are NaN, not 0."""
        self.score.add_metric(labels, column.score if column else nan)
        self.threshold.add_metric(labels, column.threshold if column else nan)
        self.direction.add_metric(labels, _SIGN[column.direction] if column else nan)
        self.drifted.add_metric(labels, column.has_drifted if column else 0.0)


def _family(metric: m.Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)


def bounded(columns: tuple[ColumnDrift, ...]) -> tuple[ColumnDrift, ...]:
    """The columns to show by name, the worst first, and the worst of all others as `REST`."""
    named = [column for column in columns if column.column in ALWAYS_SHOWN]
    others = [column for column in columns if column.column not in ALWAYS_SHOWN]
    rest = [column.model_copy(update={"column": REST}) for column in others[MOST_COLUMNS:][:1]]
    return (*named, *others[:MOST_COLUMNS], *rest)
