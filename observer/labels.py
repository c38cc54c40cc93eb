"""Counts labels and records in the same metrics as versions with the model contract."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter

from contract import metrics as m
from contract.label_metrics import LabelMetrics


class RecordMetrics:
    """The counters of all versions. Thread-safe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._made = {
            metric.name: Counter(metric.name, metric.meaning, metric.labels, registry=registry)
            for metric in (
                *(m.FEEDBACK, m.LABELS, m.PAIRED_LABELS),
                *(m.ANSWERS_DROPPED, m.PREDICTION_LOG_DROPPED, m.LOG_FAILURES),
            )
        }

        unknown = m.UNKNOWN_LABELS
        self._unknown = Counter(unknown.name, unknown.meaning, unknown.labels, registry=registry)

    def count_unknown(self) -> None:
        """Count a label for an answer that was not kept."""
        self._unknown.inc()

    def of(self, version: str) -> "VersionRecords":
        """The counters of a version; they exist at 0 from now on."""
        return VersionRecords(self._made, version)


class VersionRecords:
    """The counters of one version."""

    def __init__(self, made: Mapping[str, Counter], version: str) -> None:
        feedback, labels, pairs = (made[metric.name] for metric in (m.FEEDBACK, m.LABELS, m.PAIRED_LABELS))
        self.of_labels = LabelMetrics(version, feedback=feedback, labels=labels, pairs=pairs)
        self._dropped = made[m.ANSWERS_DROPPED.name].labels(version)
        self._rows_dropped = made[m.PREDICTION_LOG_DROPPED.name].labels(version)
        self._failures = {thread: made[m.LOG_FAILURES.name].labels(version, thread) for thread in m.LOG_THREADS}

    def count_dropped(self, answers: int) -> None:
        """Count answers that were not kept."""
        self._dropped.inc(answers)

    def count_rows_dropped(self, rows: int) -> None:
        """Count rows that the prediction log could not keep."""
        self._rows_dropped.inc(rows)

    def count_failure(self, thread: str) -> None:
        """Count a failure of a thread that writes: one of `metrics.LOG_THREADS`."""
        self._failures[thread].inc()
