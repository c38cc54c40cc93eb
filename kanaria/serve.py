"""The controller's process: puts the parts together, runs the loop in a thread and the API in front of it.

`kanaria up` starts it under the supervisor; killed, it is started again and goes on where it was.
"""

import argparse
import logging
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog
import uvicorn

from kanaria.drift import result_path
from kanaria.drift_job import DriftJob
from kanaria.fleet import LocalFleet, server_command, server_environment
from kanaria.pages import pages
from kanaria.preflight import LocalPreflight
from kanaria.settings import Settings
from kanaria.stack import gateway_settings
from kanaria.supervision import Supervisor
from monitoring.drift.metrics import DriftCollector
from monitoring.drift.result import KINDS, Kind
from monitoring.prometheus import Target, file_sd
from rollout.api import make_app
from rollout.controller import Controller
from rollout.interfaces import Backend, MetricSource
from rollout.metrics import ControllerMetrics
from rollout.routers.envoy import EnvoyRouter
from rollout.sources.failures import GatewayFailures
from rollout.sources.prometheus import PrometheusSource
from rollout.sources.scrape import ScrapeSource
from rollout.state import Deployment
from rollout.store import Ledger

if TYPE_CHECKING:
    from kanaria.annotations import Annotator


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description="Run the controller. `kanaria up` does this.")
    parser.add_argument("--envoy-admin", type=int, required=True, help="port of the gateway's admin interface")
    parser.add_argument("--prometheus", type=int, help="port of Prometheus; without it the built-in scraper reads")
    arguments = parser.parse_args()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    settings = Settings()
    metrics = ControllerMetrics()
    gateway = gateway_settings(settings, arguments.envoy_admin)
    fleet = _fleet(settings, metrics)
    controller = Controller(
        open_ledger=lambda: Ledger(settings.ledger),
        router=EnvoyRouter(gateway),
        source=_source(arguments.envoy_admin, arguments.prometheus, settings.scrape_interval_s),
        failures=GatewayFailures(gateway.failures_path, key=settings.user_key),
        fleet=fleet,
        preflight=LocalPreflight(fleet.process_of),
        metrics=metrics,
    )
    metrics.registry.register(
        DriftCollector(
            {kind: result_path(settings, kind) for kind in KINDS}, lambda: _compared(controller.snapshot.deployment)
        )
    )
    drift = DriftJob(settings, release=lambda: controller.snapshot.deployment.active, submit=controller.submit)
    app = make_app(
        controller,
        metrics,
        read_ledger=lambda: Ledger(settings.ledger, read_only=True),
        token=settings.token,
        name=settings.root.parent.name,
    )
    app.router.routes.extend(pages(settings.drift))
    server = uvicorn.Server(
        uvicorn.Config(app, host=settings.host, port=settings.controller_port, log_level="warning", access_log=False)
    )
    loop = threading.Thread(target=_run, args=(controller, server), name="control-loop")
    loop.start()
    annotator = _annotator(settings)
    drift.start()
    try:
        server.run()
    finally:
        controller.stop()  # first, for the others take a moment: a stack that shuts down starts nothing
        drift.stop()
        if annotator:
            annotator.stop()
        loop.join()


def _compared(deployment: Deployment) -> dict[Kind, str]:
    """The versions that drift is looked for in now: stable, and the canary of a release that runs."""
    found: dict[Kind, str] = {"data": deployment.stable} if deployment.stable else {}
    return found | ({"release": deployment.active.canary} if deployment.active else {})


def _run(controller: Controller, server: uvicorn.Server) -> None:
    """An API without a loop would look alive and decide nothing: when the loop dies, so does the process."""
    try:
        controller.run()
    finally:
        server.should_exit = True


def _annotator(settings: Settings) -> "Annotator | None":
    """Started, where a Grafana is configured."""
    if settings.grafana_url is None:
        return None
    from kanaria.annotations import Annotator, release_annotations  # noqa: PLC0415 - slow, and few need it
    from monitoring.grafana import Grafana  # noqa: PLC0415 - likewise

    url, token = str(settings.grafana_url), settings.grafana_secret
    annotator = Annotator(
        lambda: Grafana(url, token),
        lambda since: release_annotations(settings.ledger, settings.controller_url, since=since),
    )
    annotator.start()
    return annotator


def _source(envoy_admin: int, prometheus: int | None, scrape_interval_s: float) -> MetricSource:
    gateway = f"127.0.0.1:{envoy_admin}"
    if prometheus is None:
        return ScrapeSource(gateway)
    max_age_s = max(10.0, 3 * scrape_interval_s)  # one late scrape is no reason to go blind
    return PrometheusSource(f"http://127.0.0.1:{prometheus}", gateway, max_age_s=max_age_s)


def _fleet(settings: Settings, metrics: ControllerMetrics) -> LocalFleet:
    targets = settings.targets / "service.json"

    def tell_prometheus(backends: tuple[Backend, ...]) -> None:
        written = targets.with_suffix(".new")
        written.write_text(file_sd(Target(f"{backend.host}:{backend.port}") for backend in backends))
        written.replace(targets)  # Prometheus must never see half a file

    def environment(tag: str) -> Mapping[str, str]:
        given = server_environment(settings, tag, records=settings.root)
        return given | {name: os.environ[name] for name in ("BENTOML_HOME",) if name in os.environ}

    return LocalFleet(
        Supervisor(settings.root, settings.supervisor_socket, settings.logs),
        settings.root / "versions",
        command=server_command,
        environment=environment,
        on_change=tell_prometheus,
        on_refusal=metrics.signature_refused.inc,
    )


if __name__ == "__main__":
    main()
