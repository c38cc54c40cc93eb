"""The counters of one version's labels, counted by its own processes or by an observer for it.

The caller makes the Counters: `prometheus_client` is not imported here.
"""

from collections.abc import Mapping
from typing import Any

from contract import metrics as m


class LabelMetrics:
    """Counts labels. Series without a caller's name exist at 0 from the start, a caller's from its first label."""

    def __init__(self, version: str, *, feedback: Any, labels: Any, pairs: Any) -> None:
        """
        Args:
            feedback: the Counter of `metrics.FEEDBACK`.
            labels: that of `metrics.LABELS`.
            pairs: that of `metrics.PAIRED_LABELS`.
        """
        self._version = version
        self._feedback, self._labels, self._pairs = feedback, labels, pairs
        self.count_feedback({(outcome, ""): 0 for outcome in (m.CORRECT, m.WRONG)})
        outcomes = (m.CAME, m.CORRECT, m.WRONG, m.LATE)
        self.count_labels({(age_s, outcome, ""): 0 for age_s in m.LABEL_AGES_S for outcome in outcomes})
        self.count_pairs({(outcome, ""): 0 for outcome in (m.BETTER, m.WORSE)})

    def count_feedback(self, labels: Mapping[tuple[str, str], int]) -> None:
        """Count labels as they come, by outcome and caller."""
        for (outcome, caller), requests in labels.items():
            self._feedback.labels(self._version, outcome, caller).inc(requests)

    def count_labels(self, labels: Mapping[tuple[float, str, str], int]) -> None:
        """Count labels by the age of their answer, seconds, outcome and caller."""
        for (age_s, outcome, caller), requests in labels.items():
            self._labels.labels(self._version, f"{age_s:.0f}", outcome, caller).inc(requests)

    def count_pairs(self, labels: Mapping[tuple[str, str], int]) -> None:
        """Count labelled requests about which only one of two versions was right, by outcome and caller."""
        for (outcome, caller), requests in labels.items():
            self._pairs.labels(self._version, outcome, caller).inc(requests)
