"""Starts, stops and upgrades the stack of this machine, and knows its processes and their addresses."""

import errno
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import cached_property

from contract import loopback
from contract.http import READY_PATH
from kanaria.errors import SetupError, StackError
from kanaria.lazy import load
from kanaria.private_files import close_folder
from kanaria.settings import Settings
from kanaria.stack import out_of_reach
from kanaria.stack.bentos import process_name, tag_of
from kanaria.stack.caller_keys import CallerKeys, accepted
from kanaria.stack.certificates import (
    Certificate,
    controller_certificate,
    expiring_soon,
    gateway_certificate,
    keep,
    open_without_tls,
)
from kanaria.stack.controller_trust import controller_trust
from kanaria.stack.fleet import record_environment
from kanaria.stack.installation import given_environment, secret_names
from kanaria.stack.locks import COMMAND_LOCK, locked, one_command
from kanaria.stack.log_words import last_words, what_it_lacks
from kanaria.stack.observer_program import ObserverProgram
from kanaria.stack.ports import free_port, obstacle
from kanaria.stack.probes import polled, unready
from kanaria.stack.prometheus_stack import PROMETHEUS, PrometheusStack, has_password
from kanaria.stack.python import own_module
from kanaria.stack.release_end import end_release
from kanaria.stack.scrape_targets import write_targets
from kanaria.stack.supervision import Program, Supervisor
from kanaria.stack.temporary_folders import remove_left_over
from kanaria.stack.version_process import prepare
from kanaria.stack.versions import Versions
from rollout.errors import ControllerUnreachable, RolloutError
from rollout.explain.choices import how_to_try
from rollout.fleet import Health
from rollout.routers.envoy.bootstrap import envoy_command, write_bootstrap
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.envoy.tls import write_certificate
from rollout.spec import RolloutSpec
from rollout.ui.cli.plan import read_spec
from rollout.ui.cli.reading import deployment, newest_plan, stable_version
from rollout.ui.client import ControllerClient

GATEWAY, CONTROLLER = "gateway", "controller"  # the names of their programs
OPEN_ADMIN = "--envoy-admin"  # an argument of older controllers, whose gateway has a port for its admin interface
CLOSED_PORTS = "--closed-ports"  # an argument of controllers whose gateway and Prometheus send the ports' secret
_FIRST, _LAST = 0, 100  # in the order of stopping
_CONTROLLER_READY_S = 60.0
_RESTART_GRACE_S = 10.0  # after a crash: the keeper restarts the program, which may need some time
_SAY_EVERY_S = 15.0
_SHOWN_ROUTES = 8
_SLOWEST_UPLOAD = 1024 * 1024  # bytes per second: a large body that arrives more slowly is refused
_STAY_TICK_S = 1.0
_PROBE_TIMEOUT_S = 2.0


class _Crashes:
    """Finds out which of some processes crash repeatedly. Poll it."""

    def __init__(self, supervisor: Supervisor, names: Sequence[str]) -> None:
        self._supervisor, self._names = supervisor, names
        self._first_s, self._exits = dict[str, float](), dict[str, int]()

    def going_on(self, now_s: float) -> str | None:
        """The first process that has not come back 10 s after its crash was seen, or has crashed again since."""
        for name in self._names:
            info = self._supervisor.info(name)
            if info is None or not info.has_crashed:
                continue
            is_over = now_s > self._first_s.setdefault(name, now_s) + _RESTART_GRACE_S
            if is_over and (not info.is_alive or info.exits > self._exits.setdefault(name, info.exits)):
                return name
        return None


class _LostWorkers:
    """Detects a version that keeps losing workers before it is ready, although its process lives. Poll it."""

    def __init__(self, client: ControllerClient) -> None:
        self._client = client
        self._before: int | None = None  # lost earlier: the count includes those of earlier processes
        self._first: tuple[float, int] | None = None  # when the first loss was seen, and how many were lost by then

    def going_on(self, now_s: float) -> bool:
        """Whether the stable version lost a worker, and another one at least 10 s later."""
        try:
            stable = self._client.status().stable
        except ControllerUnreachable:
            return False
        if stable is None or stable.health != Health.STARTING.value:
            return False
        if self._before is None:
            self._before = stable.restarts
        if self._first is None and stable.restarts > self._before:
            self._first = now_s, stable.restarts
        return (
            self._first is not None and now_s > self._first[0] + _RESTART_GRACE_S and stable.restarts > self._first[1]
        )


class Stack:
    """The processes of one state folder."""

    def __init__(self, settings: Settings, *, by: str) -> None:
        self.settings, self._by = settings, by
        self.versions = Versions(settings.versions)
        self.supervisor = Supervisor(settings.root, settings.logs)
        self._token = settings.token  # makes it

    @cached_property
    def client(self) -> ControllerClient:
        """A client of the controller that trusts the controller's current certificate."""
        tls = controller_trust(self.settings)
        return ControllerClient(self.settings.controller_url, token=self._token, by=self._by, tls=tls)

    @property
    def is_running(self) -> bool:
        """Whether any process of this state folder runs, with or without a keeper."""
        return self.supervisor.is_running or bool(self.supervisor.alive())

    def up(self, tag: str | None, *, say: Callable[[str], None]) -> None:
        """Start everything and wait until it is ready. `tag` becomes stable if there is no stable version yet.

        Running processes stay; a new keeper takes them over if they have none. Raises StackError, CommandRefused.
        """
        with self._alone("kanaria up", say):
            stable = self.stable()
            self._check_version(tag, stable)
            if not self.supervisor.alive():
                self._prepare(stable or tag or "", say)
            self._start(stable or tag or "", say)
        self._wait("the controller", self.client.is_ready, program=CONTROLLER, say=say, limit_s=_CONTROLLER_READY_S)
        known = deployment(self.settings.ledger)
        stable = known.stable
        if stable is None and tag is not None:
            plan = _plan_here()
            self.client.set_stable(tag, answers=plan.answers, observe=plan.observe)
        elif tag is not None and tag != stable:
            say(f"{stable} is stable; {how_to_try(tag, known)}")
        stable = stable or tag or ""
        self._say_what_is_passed(stable, say)
        self._wait(
            "the stable version",
            self._serves,
            program=process_name(stable),
            say=say,
            limit_s=startup_deadline_s(self.settings),
            loses_workers=_LostWorkers(self.client).going_on,
        )

    def down(self, *, say: Callable[[str], None]) -> None:
        """Stop everything, then abort a running release, so that the next start begins with stable.

        Raises StackError if a process does not end, or if the end of the release cannot be recorded.
        """
        if not self.is_running and not self.supervisor.names():
            say("nothing is running")
            return
        with self._alone("kanaria down", say):
            self.supervisor.shutdown(doing="kanaria down")
            self.settings.forget_where_it_listens()
            say("stopped")
            end_release(self.settings.ledger, by=self._by, say=say)

    def stay(self, *, say: Callable[[str], None]) -> None:
        """Restart the keeper whenever it ends, until the stack is taken down."""
        while self._is_kept():
            try:
                if self.supervisor.names() and self._start_ended_keeper():
                    say("the keeper had ended; a new one took over the running processes")
            except (StackError, OSError) as error:
                say(str(error))
            time.sleep(_STAY_TICK_S)

    def _is_kept(self) -> bool:
        """Whether the stack was not taken down, as far as is known: its folder may be missing for a while."""
        try:
            return bool(self.supervisor.names()) or (self.supervisor.is_away and bool(self.supervisor.alive()))
        except OSError:
            return True

    def upgrade(self, *, say: Callable[[str], None]) -> None:
        """Restart the controller and the keeper with the installed code. The gateway and the versions keep serving.

        Raises StackError if the new controller does not start.
        """
        with self._alone("kanaria upgrade", say):
            controller = self.supervisor.program(CONTROLLER)
            if controller is None or not self.is_running:
                raise SetupError(
                    "there is nothing to upgrade", saw="no stack runs here", do="`kanaria up` starts the new code"
                )
            environment = self.supervisor.environment()
            with self.supervisor.taken_over(doing="kanaria upgrade"):
                self.supervisor.end(CONTROLLER)
                self.supervisor.replace(replace(controller, command=[sys.executable, *controller.command[1:]]))
            self.supervisor.start(environment)
        try:
            self._wait("the controller", self.client.is_ready, program=CONTROLLER, say=say, limit_s=_CONTROLLER_READY_S)
        except StackError as error:
            raise StackError(
                "the new controller did not start; the gateway and the versions still serve",
                saw=error.saw,
                do="read logs/controller.log in the state folder; to go back, install the previous release of Kanaria "
                "and run `kanaria upgrade` again",
            ) from error
        say("restarted: the controller and the keeper")
        if OPEN_ADMIN in controller.command:
            say(
                "any user of this machine can stop the gateway, which an earlier Kanaria started, "
                "until `kanaria down` and `kanaria up`"
            )
        if (prometheus := self.supervisor.program(PROMETHEUS)) and not has_password(prometheus.command):
            say(
                "any user of this machine can read Prometheus, which an earlier Kanaria started, "
                "until `kanaria down` and `kanaria up`"
            )
        if CLOSED_PORTS not in controller.command:
            say("any user of this machine can call versions at their own ports until `kanaria down` and `kanaria up`")
        others = sorted(set(self.supervisor.alive()) - {CONTROLLER})
        say(f"still running with the code they were started with: {', '.join(tag_of(name) or name for name in others)}")

    def stable(self) -> str | None:
        """The stable version by the ledger; None before the first `up`."""
        return stable_version(self.settings.ledger)

    def _check_version(self, tag: str | None, stable: str | None) -> None:
        """Refuse a version that cannot be served, before anything starts."""
        if tag is None and stable is None:
            raise SetupError(
                "there is no version to serve yet",
                saw="no stable version in the ledger",
                do="name the first one: `kanaria up TAG`",
            )
        for wanted in dict.fromkeys(filter(None, (stable, tag))):
            self.versions.require(wanted)

    def _prepare(self, tag: str, say: Callable[[str], None]) -> None:
        """Install what the first version needs, with output at the terminal. Raises SetupError, StackError."""
        self.versions.require_startable(tag)
        listed = self.versions.listed(tag)
        if listed is None:
            prepare(self.settings, tag, say=say)
        elif listed.url is not None:
            backend = listed.backend(tag, secret=self.settings.version_secret)
            if trouble := unready(polled(backend, timeout_s=_PROBE_TIMEOUT_S), backend, listed.service.readiness):
                say(f"{tag}, which is not run by Kanaria, is not ready: {trouble}")

    def _say_what_is_passed(self, tag: str, say: Callable[[str], None]) -> None:
        service = self.versions.service(tag)
        if service.keeps_contract:
            return
        paths = [route.path for route in service.routes]
        shown = ", ".join(paths[:_SHOWN_ROUTES]) + (
            f" and {more} more" if (more := len(paths) - _SHOWN_ROUTES) > 0 else ""
        )
        source = "entry" if self.versions.listed(tag) else "manifest"
        named = f"its {source} names {shown}" if paths else f"its {source} names none, so all are counted together"
        say(f"the gateway passes every path of {tag} but {' and '.join(service.kept_back)}; {named}")
        if service.has_tls and self.settings.tls_certificate is None:
            say(f"{tag} has `ssl`, and the gateway speaks plain HTTP: KANARIA_TLS_CERTIFICATE takes its certificate")

    def _alone(self, doing: str, say: Callable[[str], None]) -> AbstractContextManager[object]:
        """Keep other commands from starting or stopping processes here. Raises StackError, OSError."""
        close_folder(self.settings.root)
        return one_command(self.settings.root, doing=doing, say=say)

    def _start_ended_keeper(self) -> bool:
        """Start a keeper if there is none, unless another command works here. True if that was done.

        That command may be ending every keeper, including one that is just being started, and starts one itself.
        Raises StackError, OSError.
        """
        if self.supervisor.is_running:
            return False
        with ExitStack() as held:
            try:
                held.enter_context(locked(self.settings.root / COMMAND_LOCK, doing="start of the keeper", wait_s=0.0))
            except StackError:
                return False
            self.supervisor.start()
        return True

    def _start(self, tag: str, say: Callable[[str], None]) -> None:
        """Start the keeper if the processes run without one, or start everything."""
        is_whole = self.supervisor.program(CONTROLLER) is not None  # the controller is added last
        alive = self.supervisor.alive()
        if is_whole and self.supervisor.is_running:
            return
        if is_whole and alive:
            self.supervisor.start()
            say(f"took over processes that still ran: {', '.join(alive)}")
            return
        if alive:
            say(f"stopping leftover processes: {', '.join(alive)}")
        self.supervisor.shutdown(doing="kanaria up")
        self._start_processes(tag, say)

    def _start_processes(self, tag: str, say: Callable[[str], None]) -> None:
        settings = self.settings
        listening = [
            ("gateway", settings.host, settings.gateway_port),
            ("controller", settings.controller_host, settings.controller_port),
        ]
        if settings.prometheus_port is not None:
            listening.append(("prometheus", "127.0.0.1", settings.prometheus_port))
        for name, host, port in listening:
            if error := obstacle(host, port):
                raise _cannot_listen(name, host, port, error)
        certificates = gateway_certificate(settings), controller_certificate(settings)
        for sentence in (*open_without_tls(settings), *expiring_soon(*certificates)):
            say(sentence)
        out_of_reach.check(settings, say)
        prometheus = PrometheusStack.find(settings, controller_host=certificates[1].host if certificates[1] else None)
        if settings.notify is not None:
            addresses = load("kanaria.stack.notify_addresses:read_addresses")(settings.notify)
            say(f"decisions are sent to {', '.join(address.name for address in addresses)}")
        shutil.rmtree(settings.root / "versions", ignore_errors=True)
        remove_left_over(settings)
        gateway = self._set_up_gateway(tag, certificates[0])
        if certificates[1] is not None:
            keep(settings, certificates[1])
        self.supervisor.start()
        droppable = (str(gateway.segments_path),)  # the controller reads it, and may be down
        self.supervisor.add(Program(GATEWAY, envoy_command(gateway), stop_order=_LAST, droppable=droppable))
        arguments = [CLOSED_PORTS, "--gateway-stats", str(gateway.stats_port)]
        observer = None if self.versions.service(tag).keeps_contract else self._observer_beside(gateway)
        if observer is not None:
            self.supervisor.add(observer.program())
            arguments += observer.controller_arguments()
        write_targets(settings, gateway=gateway.stats_address, observer=observer.address if observer else None)
        if prometheus is not None:
            for program in prometheus.programs():
                self.supervisor.add(program)
            arguments += ["--prometheus", str(prometheus.prometheus_port)]
        say(f"metrics: {prometheus.names if prometheus else 'the built-in scraper'}")
        self.supervisor.add(
            Program(
                CONTROLLER,
                own_module("kanaria.stack.controller_process", *arguments),
                given_environment(settings),
                stop_order=_FIRST,  # before the versions, or it would record their end as a crash
            )
        )

    def _set_up_gateway(self, tag: str, certificate: Certificate | None) -> GatewaySettings:
        """Write the gateway's files. No command can change keys meanwhile, so a key withdrawn now stays withdrawn."""
        settings, keeps_contract = self.settings, self.versions.service(tag).keeps_contract
        with CallerKeys(settings.caller_keys).changing():
            gateway = gateway_settings(settings, free_port())
            if not keeps_contract:
                slowest_s = gateway.max_upload_bytes / _SLOWEST_UPLOAD
                gateway = replace(gateway, receive_timeout_s=max(gateway.receive_timeout_s, slowest_s))
            for left_over in (gateway.clusters_path, gateway.routes_path, gateway.answers_path):
                left_over.unlink(missing_ok=True)  # it names ports of processes that have ended
            write_bootstrap(gateway)
            if certificate is not None:
                write_certificate(gateway, chain=certificate.chain, key=certificate.key)
            settings.remember_where_it_listens()
        return gateway

    def _observer_beside(self, gateway: GatewaySettings) -> ObserverProgram:
        records = record_environment(self.settings, self.settings.root.absolute())
        variables = records | dict.fromkeys(secret_names(), "")
        sandbox = out_of_reach.sandbox_of_the_observer(self.settings, gateway)
        return ObserverProgram.beside(gateway, self.settings.recorded, variables, sandbox)

    def _serves(self) -> bool:
        """Whether the gateway reaches a ready stable version. False while the controller restarts."""
        try:
            status = self.client.status()
        except ControllerUnreachable:
            return False
        if status.stable is None or status.stable.health != Health.READY.value:
            return False
        return loopback.answers(f"{self.settings.gateway_url}{READY_PATH}", timeout_s=2.0)

    def _wait(
        self,
        what: str,
        is_ready: Callable[[], bool],
        *,
        program: str,
        say: Callable[[str], None],
        limit_s: float,
        loses_workers: Callable[[float], bool] = lambda _: False,
    ) -> None:
        """Wait until `is_ready`. Raises StackError with the end of `program`'s log, early if it keeps crashing."""
        began_s, say_at_s = time.monotonic(), _SAY_EVERY_S
        crashes = _Crashes(self.supervisor, (GATEWAY, CONTROLLER, program))  # `program` may wait for the first two
        while not is_ready():
            took_s = time.monotonic() - began_s
            crashed = crashes.going_on(took_s)
            how = f"{crashed} ended by itself" if crashed else ""
            if not crashed and loses_workers(took_s):
                crashed, how = program, "its workers keep ending"
            if not self.supervisor.names():
                raise StackError(
                    "the stack was taken down while it started", saw="nothing runs", do="run `kanaria up` again"
                )
            self._start_ended_keeper()
            log = self.settings.logs / f"{crashed or program}.log"
            if crashed or took_s > limit_s:
                ended = self.supervisor.program(crashed or program)
                words = last_words(log) or "its log is empty"
                lacks = what_it_lacks(ended.listed, log) if ended else ""
                raise StackError(
                    f"{what} was not ready after {took_s:.0f} s",
                    saw="; ".join(filter(None, (how, words, lacks))),
                    do=f"read {log if log.exists() else self.settings.logs} and fix the cause, "
                    "then run `kanaria down` and `kanaria up`",
                )
            if took_s >= say_at_s:
                say_at_s += _SAY_EVERY_S
                say(f"waiting for {what}: {took_s:.0f} s of at most {limit_s:.0f}; {last_words(log) or 'no output'}")
            time.sleep(0.1)


def _cannot_listen(name: str, host: str, port: int, error: OSError) -> SetupError:
    what, saw = f"the {name} cannot listen on port {port}", f"{error.strerror} for the address {host}"
    another = f"set KANARIA_{name.upper()}_PORT to another port"
    match error.errno:
        case errno.EADDRINUSE:
            what, saw = f"the port of the {name} is taken", f"something listens on {host}:{port}"
            do = f"stop it, or {another}"
        case errno.EACCES:
            do = f"{another}: ports below 1024 need root"
        case _:
            do = "set KANARIA_HOST to an address of this machine, such as 127.0.0.1, or to 0.0.0.0 for all of them"
    return SetupError(what, saw=saw, do=do)


def _plan_here() -> RolloutSpec:
    """The plan in ./rollout.yaml; the default plan if it cannot be read."""
    try:
        return read_spec(None)
    except RolloutError:  # `kanaria release` says what is wrong
        return RolloutSpec()


def startup_deadline_s(settings: Settings) -> float:
    """How long a version may take to load here, seconds: the larger of ./rollout.yaml and the newest release."""
    try:
        known = newest_plan(settings.ledger)
        return max(plan.startup_deadline for plan in (known, read_spec(None)) if plan)
    except RolloutError:  # `kanaria release` says what is wrong
        return RolloutSpec().startup_deadline


def gateway_settings(settings: Settings, stats_port: int, *, with_keys: bool = True) -> GatewaySettings:
    """The settings of this state folder's gateway.

    Args:
        with_keys: False for a gateway that is set up already; it then works even if the file of keys is damaged.

    Raises: SetupError if the file of keys is damaged.
    """
    found = GatewaySettings(
        directory=settings.root / "gateway",
        host=settings.host,
        port=settings.gateway_port,
        stats_port=stats_port,
        api_keys=accepted(settings) if with_keys and settings.needs_api_key else (),
        asks_for_keys=settings.needs_api_key,
        max_requests_per_s=settings.max_requests_per_s,
        cors_origins=settings.cors_origins,
        underscore_headers=settings.underscore_headers,
        has_tls=settings.tls_certificate is not None,
        try_timeout_s=settings.try_timeout_s,
    )
    limit = settings.max_body_bytes
    return replace(found, max_body_bytes=limit, max_upload_bytes=limit) if limit else found
