"""The controller's own metrics, labelled by version and signal, at 0 from the start."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from rollout.interfaces import Health
from rollout.release_metrics import ReleaseMetrics
from rollout.snapshot import Snapshot
from rollout.state import Phase


class ControllerMetrics:
    """One registry per controller, so that two of them never share a series."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.source_unreachable = Counter(
            "kanaria_source_unreachable_total", "Readings that the metric source did not give", registry=self.registry
        )
        self.router_failures = Counter(
            "kanaria_router_failures_total", "Splits that the data plane refused", registry=self.registry
        )
        self.signature_refused = Counter(
            "kanaria_signature_refused_total", "Versions that did not start for their signature", registry=self.registry
        )
        self._last_beat = self._gauge("kanaria_controller_last_tick_timestamp_seconds", "Last beat of the control loop")
        self.release = ReleaseMetrics(self.registry)
        self._state = self._gauge("kanaria_release_state", "1 for the phase the newest release is in", "state")
        self._step_since = self._gauge(
            "kanaria_release_step_started_timestamp_seconds", "Start of the step; 0: no release"
        )
        self._weight = self._gauge(
            "kanaria_release_weight_percent", "Share of traffic by version, read back", "version"
        )
        self._up = self._gauge(
            "kanaria_version_up", "1 when the version answers its readiness probe", "version", "role"
        )
        for phase in Phase:
            self._state.labels(state=phase.value).set(0)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def publish(self, snapshot: Snapshot) -> None:
        """Replace every gauge by what `snapshot` says."""
        self._last_beat.set(snapshot.beat_s)
        release = snapshot.deployment.release
        for phase in Phase:
            self._state.labels(state=phase.value).set(release is not None and release.phase is phase)
        active = snapshot.deployment.active
        self._step_since.set(active.phase_since_s if active else 0)
        for gauge in (self._weight, self._up):
            gauge.clear()
        for version, state in snapshot.health.items():
            role = "stable" if version == snapshot.deployment.stable else "canary"
            self._up.labels(version=version, role=role).set(state is Health.READY)
            self._weight.labels(version=version).set(0)
        if snapshot.observed:
            split = snapshot.observed
            self._weight.labels(version=split.stable).set(split.stable_percent)
            if split.canary:
                self._weight.labels(version=split.canary).set(split.canary_percent)
        self.release.publish(release)

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
