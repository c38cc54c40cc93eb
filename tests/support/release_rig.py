"""A gateway, two versions, and the real controller, which ticks when the test says so."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.control.metrics import ControllerMetrics
from rollout.fleet import Health, Service, VersionStatus
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.routers.envoy.failure_log import GatewayFailures
from rollout.routers.envoy.metrics import EnvoyMetrics
from rollout.routers.envoy.segment_log import GatewaySegments
from rollout.sources.scrape import ScrapeSource
from rollout.spec import RolloutSpec
from tests.support.gateway_rig import Gateway, StandIn, eventually


@dataclass
class Versions:
    """A Fleet of model servers that are always up."""

    models: dict[str, StandIn]
    started: set[str] = field(default_factory=set)

    def known_tags(self) -> tuple[str, ...]:
        return tuple(self.models)

    def service(self, tag: str) -> Service:
        return self.models[tag].version.service

    def start(self, tag: str) -> None:
        self.started.add(tag)

    def status(self, tag: str) -> VersionStatus:
        return VersionStatus(Health.READY, (self.models[tag].backend,))

    def stop(self, tag: str) -> None:
        self.started.discard(tag)

    def running(self) -> tuple[str, ...]:
        return tuple(self.started)


class ReleaseRig:
    """A gateway, stable and canary, and a controller that may be killed."""

    def __init__(self, gateway: Gateway, ledger: Path, models: tuple[StandIn, StandIn]) -> None:
        self.gateway, self.models = gateway, models
        self._ledger = ledger
        self._fleet = Versions({model.tag: model for model in models})
        self._source = ScrapeSource(EnvoyMetrics.of(gateway.settings))
        self.restart()

    def restart(self) -> None:
        """Start a new controller, which knows only what is on disk."""
        if hasattr(self, "controller"):
            self.controller.close()
        self.controller = Controller(
            open_ledger=lambda: Ledger(self._ledger),
            router=self.gateway.router,
            source=self._source,
            failures=GatewayFailures(self.gateway.settings.failures_path, key=b"secret"),
            segments=GatewaySegments(self.gateway.settings.segments_path),
            fleet=self._fleet,
            metrics=ControllerMetrics(),
        )
        self.controller.recover()

    def close(self) -> None:
        self.controller.close()
        self._source.close()

    def until(self, claim: Callable[[], object]) -> None:
        """Tick until `claim()` is true, while other threads keep sending requests that succeed."""

        def beat() -> object:
            self.gateway.predict()
            self.controller.beat()
            return claim()

        eventually(beat)

    def release(self, spec: RolloutSpec) -> None:
        """Start a release and return when the canary's share of the traffic is counted."""
        self.controller.execute(c.SetStable(self.models[0].tag, "ann"))
        self.until(self.gateway.router.observed)
        self.controller.execute(c.StartRelease(self.models[1].tag, spec, "ann"))
        self.until(lambda: any(isinstance(event, e.Ticked) for event in self.events()))

    def events(self) -> list[e.Event]:
        return list(self.controller._ledger.events())
