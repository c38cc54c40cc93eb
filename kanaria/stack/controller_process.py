"""The controller's process: assembles the parts, and runs the control loop in a thread and the API in the main thread.

If it is killed, the keeper restarts it and it continues where it was. It restarts the keeper in the same way. A second
controller of the same state folder waits, and does nothing, until the first has ended.
"""

import argparse
import math
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog

from contract.log_lines import log_as_json
from kanaria.errors import SetupError, StackError
from kanaria.settings import Settings
from kanaria.stack.any_fleet import AnyFleet
from kanaria.stack.backup_schedule import BackupSchedule
from kanaria.stack.certificate_watch import certificate_watch
from kanaria.stack.certificates import names_in_force
from kanaria.stack.controller_server import served
from kanaria.stack.drift_results import result_path
from kanaria.stack.drift_schedule import DriftSchedule
from kanaria.stack.fleet import LocalFleet, server_environment
from kanaria.stack.gateway_watch import GatewayWatch
from kanaria.stack.lock_guard import LockGuard
from kanaria.stack.named_tokens import NamedTokens, People
from kanaria.stack.observer_program import OBSERVER_OPTION
from kanaria.stack.out_of_reach import sandbox_of
from kanaria.stack.pages import DRIFT_TITLES, pages
from kanaria.stack.preflight import LocalPreflight
from kanaria.stack.recording import end_left_behind
from kanaria.stack.remote_fleet import RemoteFleet
from kanaria.stack.scrape_targets import write_versions
from kanaria.stack.shown_share import ShownShare
from kanaria.stack.signing import is_to_be_verified
from kanaria.stack.sleeping_server import SleepingServer
from kanaria.stack.stack import CLOSED_PORTS, CONTROLLER, GATEWAY, OPEN_ADMIN, gateway_settings
from kanaria.stack.supervision import Supervisor
from kanaria.stack.version_process import server_command
from kanaria.stack.versions import Versions
from monitoring.drift.metrics import DriftCollector
from monitoring.drift.result import KINDS, Kind
from rollout.control.controller import Controller
from rollout.control.metrics import ControllerMetrics
from rollout.fleet import Backend
from rollout.ledger.ledger import Ledger
from rollout.ledger.lock import WriterLock
from rollout.ledger.reserve import RESERVE_BYTES, open_ledger
from rollout.ledger.state import Deployment
from rollout.routers.envoy.failure_log import GatewayFailures
from rollout.routers.envoy.metrics import EnvoyMetrics
from rollout.routers.envoy.pressure import Pressure
from rollout.routers.envoy.router import EnvoyRouter
from rollout.routers.envoy.segment_log import GatewaySegments
from rollout.routers.envoy.settings import GatewaySettings
from rollout.sources.failover import FailoverSource
from rollout.sources.firing import FiringAlerts
from rollout.sources.observer import ObserverPage
from rollout.sources.prometheus import PrometheusSource
from rollout.sources.scrape import ScrapeSource
from rollout.sources.source import MetricSource
from rollout.ui.api import Surroundings, UntrustedAlerts, make_app
from rollout.ui.callers import Callers
from rollout.ui.html import Link
from rollout.ui.runbooks import RUNBOOKS
from rollout.ui.web import RUNBOOKS as RUNBOOKS_URL

if TYPE_CHECKING:
    from kanaria.stack.annotations import Annotator
    from kanaria.stack.notifier import Notifier

log = structlog.get_logger()

_KEEPER_EVERY_S = 1.0
_FIRST_LOOK_S = 10.0  # longest wait for the ledger, whose disk may hang; after that, answers report it


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description="Run the controller. `kanaria up` does this.")
    metrics_of_gateway = parser.add_mutually_exclusive_group(required=True)
    metrics_of_gateway.add_argument("--gateway-stats", type=int, help="port of the gateway's metrics")
    metrics_of_gateway.add_argument(OPEN_ADMIN, type=int, help="port of the admin of a gateway of Kanaria 0.1")
    parser.add_argument("--prometheus", type=int, help="port of Prometheus; without it the built-in scraper reads")
    parser.add_argument(OBSERVER_OPTION, type=int, help="port of the observer's counts; without it there is none")
    parser.add_argument(
        CLOSED_PORTS, action="store_true", help="versions ask for a secret; gateway and Prometheus send it"
    )
    arguments = parser.parse_args()
    log_as_json()
    observer = f"127.0.0.1:{arguments.observer}" if arguments.observer else None
    settings = Settings()
    lock = WriterLock(settings.ledger, who="the controller")
    lock.wait(on_held=lambda held: log.warning("waits_for_lock", why=held.what, saw=held.saw))
    LockGuard(lock).start()
    metrics = ControllerMetrics()
    gateway = replace(
        gateway_settings(settings, arguments.gateway_stats or arguments.envoy_admin, with_keys=False),
        has_open_admin=arguments.envoy_admin is not None,
        has_observer=observer is not None,
    )
    fleet = _fleet(settings, metrics, settings.version_secret if arguments.closed_ports else "")
    supervisor = Supervisor(settings.root, settings.logs)
    pressure = Pressure(gateway)
    watch = GatewayWatch(
        settings.gateway_url,
        restart=partial(supervisor.restart, GATEWAY),
        tell=pressure.tell,
        is_full=lambda: pressure.is_full,
    )
    metrics.gateway_silent.set_function(lambda: watch.unanswered_s)
    controller = Controller(
        open_ledger=lambda: open_ledger(settings.ledger),
        reserve_bytes=RESERVE_BYTES,
        router=EnvoyRouter(gateway),
        source=_source(settings, EnvoyMetrics.of(gateway), observer, arguments.prometheus),
        failures=GatewayFailures(gateway.failures_path, key=settings.user_key),
        fleet=fleet,
        preflight=LocalPreflight(fleet.process_of, fleet.service, settings),
        metrics=metrics,
        gateway=watch,
        segments=GatewaySegments(gateway.segments_path),
        observer=ObserverPage(observer) if observer else None,
    )
    metrics.registry.register(
        DriftCollector(
            {kind: result_path(settings, kind) for kind in KINDS}, lambda: _compared(controller.snapshot.deployment)
        )
    )
    drift = DriftSchedule(
        settings,
        release=lambda: controller.snapshot.deployment.active,
        submit=controller.submit,
        on_crash=metrics.drift_crashed,
    )
    backups = BackupSchedule(metrics, every_s=settings.ledger_backup_every_s)
    alerts = _untrusted_alerts(settings, arguments.prometheus)
    app = make_app(
        controller,
        metrics,
        read_ledger=lambda: Ledger(settings.ledger, read_only=True),
        callers=Callers(settings.token, People(NamedTokens(settings.named_tokens))),
        name=settings.deployment,
        alerts=alerts,
        surroundings=Surroundings(
            links=partial(_links, settings),
            firing=alerts.firing if alerts else tuple,
            names=own_names(settings),
        ),
    )
    app.router.routes.extend(pages(settings.drift, links=partial(_links, settings)))
    config, encrypts = served(app, settings)
    server = SleepingServer(config)
    certificates = certificate_watch(settings, gateway, encrypts, tell=metrics.certificate_shown)
    loop = threading.Thread(target=_run, args=(controller, server), name="control-loop")
    beside: list[_Beside] = []
    loop.start()
    try:  # if no more threads can start, the loop must end too: without the API nobody could command it
        beside += [teller for teller in (_annotator(settings), _notifier(settings, metrics)) if teller]
        beside += _shown_share(settings, gateway, controller, metrics)
        for thread in (watch, certificates, drift, backups, _KeeperWatch(supervisor)):
            beside.append(thread)
            thread.start()
        _serve(controller, server)
    finally:
        controller.stop()  # first: the others take a moment, and a stack that shuts down must not start anything
        for part in reversed(beside):
            part.stop()
        loop.join()


class _Beside(Protocol):
    """A part that runs in its own threads."""

    def stop(self) -> None: ...


class _KeeperWatch(threading.Thread):
    """Starts a new keeper whenever there is none. It takes over the running processes."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__(name="keeper-watch")
        self._supervisor, self._stopped = supervisor, threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(_KEEPER_EVERY_S):
            try:
                # A state folder that does not list this process is another one at the path of one that was moved.
                if not self._supervisor.is_running and self._supervisor.program(CONTROLLER):
                    self._supervisor.start()
                    log.warning("keeper_started", reason="the one before had ended")
            except StackError as error:
                log.warning("keeper_not_started", error=error.what, saw=error.saw)
            except Exception:
                log.exception("keeper_not_started")

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self.is_alive():
            self.join()


def _compared(deployment: Deployment) -> dict[Kind, str]:
    """The versions whose drift reports apply now: stable, and the canary of a running release."""
    found: dict[Kind, str] = {"data": deployment.stable} if deployment.stable else {}
    return found | ({"release": deployment.active.canary} if deployment.active else {})


def _serve(controller: Controller, server: SleepingServer) -> None:
    """Answer until SIGTERM. First waits for the ledger: before it is read, answers would show no release."""
    controller.has_looked(within_s=_FIRST_LOOK_S)
    server.run()


def _run(controller: Controller, server: SleepingServer) -> None:
    """Run the loop. When it ends, the process ends: an API without a loop would look alive and decide nothing."""
    try:
        controller.run()
    finally:
        server.should_exit = True


def _annotator(settings: Settings) -> "Annotator | None":
    """The started sender of annotations; None if no Grafana is configured."""
    if settings.grafana_url is None:
        return None
    from kanaria.stack.annotations import Annotator, release_annotations  # noqa: PLC0415 - slow, and few need it
    from monitoring.grafana.push import Grafana  # noqa: PLC0415 - likewise

    url, token = str(settings.grafana_url), settings.grafana_secret
    annotator = Annotator(
        lambda: Grafana(url, token),
        lambda since: release_annotations(settings.ledger, settings.controller_url, since=since),
    )
    annotator.start()
    return annotator


def _notifier(settings: Settings, metrics: ControllerMetrics) -> "Notifier | None":
    """The started notifier; None without KANARIA_NOTIFY. An unusable file does not stop the controller."""
    if settings.notify is None:
        return None
    from kanaria.stack.notifier import Notifier  # noqa: PLC0415 - slow, and few need it
    from kanaria.stack.notify_addresses import read_addresses  # noqa: PLC0415 - likewise

    try:
        addresses = read_addresses(settings.notify)
    except SetupError as error:
        log.critical("nobody_is_notified", error=error.what, saw=error.saw, do=error.do)
        metrics.notification_overdue.set(math.inf)
        return None
    notifier = Notifier(
        addresses,
        settings.ledger,
        told=settings.notified,
        name=settings.deployment,
        page=settings.people_url,
        counters=metrics,
    )
    metrics.notification_overdue.set_function(lambda: notifier.overdue_s)
    notifier.start()
    return notifier


def _shown_share(
    settings: Settings, gateway: GatewaySettings, controller: Controller, metrics: ControllerMetrics
) -> tuple[ShownShare, ...]:
    """The started adjustment of the observer's share; empty without an observer."""
    if not gateway.has_observer:
        return ()
    share = ShownShare(
        gateway,
        wanted=lambda: controller.snapshot.deployment.observe,
        end_left_behind=partial(end_left_behind, settings),
        missed=metrics.observer_missed.inc,
    )
    metrics.observer_share.set_function(lambda: math.nan if share.share is None else share.share)
    share.start()
    return (share,)


def _source(settings: Settings, gateway: EnvoyMetrics, observer: str | None, prometheus: int | None) -> MetricSource:
    direct = ScrapeSource(gateway, observer=observer)
    if prometheus is None:
        return direct
    silent_s = 3 * settings.scrape_interval_s
    store = PrometheusSource(
        f"http://127.0.0.1:{prometheus}",
        gateway,
        observer=observer,
        max_age_s=max(10.0, silent_s),  # one late scrape does not stop the judge
        login=settings.prometheus_login,
    )
    return FailoverSource(store, direct, silent_s=silent_s)


def _untrusted_alerts(settings: Settings, prometheus: int | None) -> UntrustedAlerts | None:
    """The alerts of the stack's own Prometheus; None if it has none."""
    if prometheus is None:
        return None
    firing = FiringAlerts(f"http://127.0.0.1:{prometheus}", login=settings.prometheus_login)
    return UntrustedAlerts(settings.alerts_token, firing.now)


def _links(settings: Settings) -> Iterator[Link]:
    """Links to the other pages that exist now."""
    for kind in KINDS:
        if result_path(settings, kind).is_file():
            yield Link(DRIFT_TITLES[kind], f"/drift/{kind}")
    if RUNBOOKS.is_file():
        yield Link("Runbooks", RUNBOOKS_URL)
    if settings.grafana_url:
        yield Link("Grafana", str(settings.grafana_url))


def own_names(settings: Settings) -> frozenset[str]:
    """The host names, in addition to addresses, by which people and Prometheus reach the controller.

    `host.docker.internal` is not one: outside containers, the network's name server decides where it leads.
    """
    given = settings.page_url.host if settings.page_url else None
    return frozenset(filter(None, (given, socket.gethostname(), *names_in_force(settings))))


def _fleet(settings: Settings, metrics: ControllerMetrics, secret: str) -> AnyFleet:
    versions = Versions(settings.versions)

    def tell_prometheus(_: tuple[Backend, ...]) -> None:
        write_versions(settings, (*local.backends(), *remote.backends()), knows_secret=bool(secret))

    def environment(tag: str) -> Mapping[str, str]:
        given = server_environment(settings, tag, records=settings.root)
        return given | {name: os.environ[name] for name in ("BENTOML_HOME",) if name in os.environ}

    local = LocalFleet(
        Supervisor(settings.root, settings.logs),
        settings.root / "versions",
        command=partial(server_command, settings),
        environment=environment,
        on_change=tell_prometheus,
        on_refusal=metrics.signature_refused.inc,
        versions=versions,
        replicas=settings.replicas,
        pass_env=settings.pass_env,
        secret=secret,
        is_to_be_verified=partial(is_to_be_verified, settings),
        sandbox=lambda tag, own: sandbox_of(settings, tag, [own], records=settings.root),
    )
    folder = settings.root / "versions" / "remote"
    remote = RemoteFleet(folder, versions, on_change=tell_prometheus, secret=secret)
    return AnyFleet(local, remote, versions)


if __name__ == "__main__":
    main()
