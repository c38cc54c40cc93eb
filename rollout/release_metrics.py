"""What is known of the newest release, as metrics: who is tried, what the judge says of it, what became of it.

Boards show the evidence beside the thresholds that it is held against, so both are here, signal by signal.
"""

from typing import get_args

from prometheus_client import CollectorRegistry, Gauge

from rollout.events import Outcome
from rollout.judge import Judgement, Verdict
from rollout.state import Release

_OF_EVIDENCE = {  # name after `kanaria_release_` -> meaning, labels besides the canary's version
    "evidence_log": ("Log e-value against harmless", ("signal",)),
    "evidence_threshold": ("Log e-value at which this signal alone fails", ("signal",)),
    "combined_evidence_log": ("Log e-value of all signals together", ()),
    "combined_evidence_threshold": ("Log e-value at which all signals together fail", ()),
    "verdict": ("1 for the judge's last verdict", ("verdict",)),
    "excess_upper_ratio": ("Bound on the canary's excess of bad answers, of its own requests", ("signal",)),
    "requests_needed": ("Canary requests still needed for the next step", ()),
    "canary_requests_total": ("Canary requests judged so far", ()),
}


class ReleaseMetrics:
    """The gauges, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._info = Gauge(
            "kanaria_release_info", "1 for the newest release", ("release", "canary", "stable"), registry=registry
        )
        self._outcome = Gauge(
            "kanaria_release_outcome", "1 for what became of the newest release", ("outcome",), registry=registry
        )
        self._evidence = {
            name: Gauge(f"kanaria_release_{name}", text, ("version", *labels), registry=registry)
            for name, (text, labels) in _OF_EVIDENCE.items()
        }
        self._judged: int | None = None  # number of the release that the evidence belongs to

    def publish(self, release: Release | None) -> None:
        """Show the newest release, ended or not."""
        self._info.clear()
        if release:
            self._info.labels(release=str(release.number), canary=release.canary, stable=release.stable).set(1)
        for outcome in get_args(Outcome):
            self._outcome.labels(outcome=outcome).set(release is not None and release.outcome == outcome)

    def judged(self, release: Release, judgement: Judgement) -> None:
        """Show what the judge made of the evidence; it stays until the next release is judged.

        Called at each look: by the time that a decision is published, its judgement is used up and would never be seen.
        """
        if release.number != self._judged:
            for gauge in self._evidence.values():
                gauge.clear()
            self._judged = release.number
        signals = judgement.signals
        self._set(release, "combined_evidence_log", judgement.log_e)
        self._set(release, "combined_evidence_threshold", judgement.threshold)
        for verdict in Verdict:
            self._set(release, "verdict", judgement.verdict is verdict, verdict.value)
        for name, signal in signals.items():
            self._set(release, "evidence_log", signal.log_e, name)
            self._set(release, "evidence_threshold", signal.threshold, name)
            if signal.excess_upper is not None:
                self._set(release, "excess_upper_ratio", signal.excess_upper, name)
        needed = (signal.more_requests_needed or 0 for signal in signals.values())
        self._set(release, "requests_needed", max(needed, default=0))
        self._set(release, "canary_requests_total", max((s.canary.total for s in signals.values()), default=0))

    def _set(self, release: Release, name: str, value: float, *labels: str) -> None:
        self._evidence[name].labels(release.canary, *labels).set(value)
