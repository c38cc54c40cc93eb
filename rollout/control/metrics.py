"""The controller's own metrics, labelled by version and signal, at 0 from the start."""

import math
from collections.abc import Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from contract import metrics as m
from contract.tls import Validity
from rollout.control.snapshot import Snapshot
from rollout.fleet import Health
from rollout.judge import Judgement, Verdict
from rollout.ledger.events import Outcome
from rollout.ledger.state import Phase, Release

_OF_EVIDENCE = (
    m.RELEASE_EVIDENCE,
    m.RELEASE_THRESHOLD,
    m.RELEASE_COMBINED_EVIDENCE,
    m.RELEASE_COMBINED_THRESHOLD,
    m.RELEASE_VERDICT,
    m.RELEASE_EXCESS,
    m.RELEASE_REQUESTS_NEEDED,
    m.RELEASE_CANARY_REQUESTS,
)


class ControllerMetrics:
    """One registry per controller, so that two of them never share a series."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.source_unreachable = self._counter(m.SOURCE_UNREACHABLE)
        self.router_failures = self._counter(m.ROUTER_FAILURES)
        self.signature_refused = self._counter(m.SIGNATURE_REFUSED)
        self.failed_beats = self._counter(m.FAILED_BEATS)
        self.gateway_silent = _gauge(self.registry, m.GATEWAY_SILENT)
        self.ledger_gone = _gauge(self.registry, m.LEDGER_GONE)
        self._ledger_events = _gauge(self.registry, m.LEDGER_EVENTS)
        self._ledger_head = _gauge(self.registry, m.LEDGER_HEAD)
        self.ledger_copied = _gauge(self.registry, m.LEDGER_COPIED)
        self.ledger_copy_failures = _gauge(self.registry, m.LEDGER_COPY_FAILURES)
        self._drift_crashes = self._counter(m.DRIFT_CRASHES)
        self._notifications = self._counter(m.NOTIFICATIONS)
        self.notification_overdue = _gauge(self.registry, m.NOTIFICATION_OVERDUE)
        self.observer_share = _gauge(self.registry, m.OBSERVER_SHARE)
        self.observer_share.set(math.nan)
        self.observer_missed = self._counter(m.OBSERVER_MISSED)
        self._certificate_expires = _gauge(self.registry, m.CERTIFICATE_EXPIRES)
        self._certificate_lifetime = _gauge(self.registry, m.CERTIFICATE_LIFETIME)
        self._last_beat = _gauge(self.registry, m.LAST_BEAT)
        self._unjudged = _gauge(self.registry, m.UNJUDGED)
        self.failed_in_a_row = _gauge(self.registry, m.FAILED_IN_A_ROW)
        self._unwritten = _gauge(self.registry, m.UNWRITTEN)
        self._free = _gauge(self.registry, m.FREE_BYTES)
        self.release = ReleaseMetrics(self.registry)
        self._state = _Shown(self.registry, m.RELEASE_STATE)
        self._step_since = _gauge(self.registry, m.RELEASE_STEP_STARTED)
        self._weight = _Shown(self.registry, m.RELEASE_WEIGHT)
        self._up = _Shown(self.registry, m.VERSION_UP)
        self._state.set({(phase.value,): 0 for phase in Phase})
        for kind in ("data", "release"):
            self._drift_crashes.labels(kind=kind)
        for result in (m.DELIVERED, m.WITHOUT_TEXT, m.FAILED, m.DROPPED):
            self._notifications.labels(outcome=result)

    def _counter(self, metric: m.Metric) -> Counter:
        return Counter(metric.name, metric.meaning, metric.labels, registry=self.registry)

    def drift_crashed(self, kind: str) -> None:
        """Count a scheduled drift report that crashed."""
        self._drift_crashes.labels(kind=kind).inc()

    def notified(self, outcome: str, messages: int = 1) -> None:
        """Count messages to people, by one of the outcomes of `contract.metrics`."""
        self._notifications.labels(outcome=outcome).inc(messages)

    def certificate_shown(self, service: str, shown: Validity) -> None:
        """Show which certificate the gateway or the controller gives to new clients."""
        self._certificate_expires.labels(service=service).set(shown.until.timestamp())
        self._certificate_lifetime.labels(service=service).set((shown.until - shown.since).total_seconds())

    def publish(self, snapshot: Snapshot) -> None:
        """Set every gauge from `snapshot`."""
        self._last_beat.set(snapshot.beat_s)
        self._unjudged.set(snapshot.unjudged_s)
        self._unwritten.set(len(snapshot.unwritten))
        self._free.set(snapshot.free_bytes)
        self._ledger_events.set(snapshot.head.events)
        self._ledger_head.set(snapshot.head.as_number)
        release = snapshot.deployment.release
        self._state.set({(phase.value,): release is not None and release.phase is phase for phase in Phase})
        active = snapshot.deployment.active
        self._step_since.set(active.phase_since_s if active else 0)
        up: dict[tuple[str, ...], float] = {}
        for version, state in snapshot.health.items():
            role = "stable" if version == snapshot.deployment.stable else "canary"
            if role == "stable" or state is not Health.STARTING:  # a loading canary is not down
                up[version, role] = state is Health.READY
        self._up.set(up)
        weights: dict[tuple[str, ...], float] = {(version,): 0 for version in snapshot.health}
        if snapshot.observed:
            split = snapshot.observed
            weights[(split.stable,)] = split.stable_percent
            if split.canary:
                weights[(split.canary,)] = split.canary_percent
        self._weight.set(weights)
        self.release.publish(release)

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


class ReleaseMetrics:
    """The gauges of the newest release, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._info = _Shown(registry, m.RELEASE_INFO)
        self._outcome = _Shown(registry, m.RELEASE_OUTCOME)
        self._evidence = {metric: _gauge(registry, metric) for metric in _OF_EVIDENCE}
        self._judged: int | None = None  # number of the release that the evidence belongs to

    def publish(self, release: Release | None) -> None:
        """Show the newest release, ended or not."""
        self._info.set({(str(release.number), release.canary, release.stable): 1} if release else {})
        outcomes = get_args(Outcome)
        self._outcome.set({(outcome,): release is not None and release.outcome == outcome for outcome in outcomes})

    def judged(self, release: Release, judgement: Judgement) -> None:
        """Show a judgement; it stays until the next release is judged.

        Call this with each tick: once a decision is published, its judgement is gone and would never be shown.
        """
        if release.number != self._judged:
            for gauge in self._evidence.values():
                gauge.clear()
            self._judged = release.number
        signals = judgement.signals
        self._set(release, m.RELEASE_COMBINED_EVIDENCE, judgement.log_e)
        self._set(release, m.RELEASE_COMBINED_THRESHOLD, judgement.threshold)
        for verdict in Verdict:
            self._set(release, m.RELEASE_VERDICT, judgement.verdict is verdict, verdict.value)
        for name, signal in signals.items():
            self._set(release, m.RELEASE_EVIDENCE, signal.log_e, name)
            self._set(release, m.RELEASE_THRESHOLD, signal.threshold, name)
            if signal.excess_upper is not None:
                self._set(release, m.RELEASE_EXCESS, signal.excess_upper, name)
        needed = (signal.more_requests_needed or 0 for signal in signals.values())
        self._set(release, m.RELEASE_REQUESTS_NEEDED, max(needed, default=0))
        self._set(release, m.RELEASE_CANARY_REQUESTS, max((s.canary.total for s in signals.values()), default=0))

    def _set(self, release: Release, metric: m.Metric, value: float, *labels: str) -> None:
        self._evidence[metric].labels(release.canary, *labels).set(value)


class _Shown:
    """A gauge with one series for each of a changing set of things. A series that stays never disappears for a reader.

    It is set with every beat, so it keeps its series objects: looking one up takes longer than setting it.
    """

    def __init__(self, registry: CollectorRegistry, metric: m.Metric) -> None:
        self._gauge = _gauge(registry, metric)
        self._series: dict[tuple[str, ...], Gauge] = {}

    def set(self, values: Mapping[tuple[str, ...], float]) -> None:
        """Show these values by their labels, and no others."""
        for labels in self._series.keys() - values.keys():
            self._gauge.remove(*labels)
            del self._series[labels]
        for labels, value in values.items():
            if labels not in self._series:
                self._series[labels] = self._gauge.labels(*labels)
            self._series[labels].set(value)


def _gauge(registry: CollectorRegistry, metric: m.Metric) -> Gauge:
    return Gauge(metric.name, metric.meaning, metric.labels, registry=registry)
