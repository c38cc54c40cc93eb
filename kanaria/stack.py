"""The stack of this machine: which processes there are, in what order they start, and how to reach them."""

import shutil
import sys
import time
from collections.abc import Callable

import httpx

from kanaria.bentos import bento_tags
from kanaria.errors import SetupError, StackError
from kanaria.fleet import last_words, process_name
from kanaria.monitors import Monitors, write_targets
from kanaria.network import free_port, is_free
from kanaria.settings import Settings
from kanaria.supervision import Program, Supervisor
from rollout.client import ControllerClient
from rollout.interfaces import Health
from rollout.routers.envoy_bootstrap import envoy_command, write_bootstrap
from rollout.routers.envoy_settings import GatewaySettings
from rollout.state import Phase, fold
from rollout.store import Ledger

_READY_TIMEOUT_S = 60.0
_SECOND_CHANCE_S = 10.0  # after a crash; the supervisor starts it again


class Stack:
    """The processes of one state folder."""

    def __init__(self, settings: Settings, *, by: str) -> None:
        self.settings = settings
        self.supervisor = Supervisor(settings.root, settings.supervisor_socket, settings.logs)
        self.client = ControllerClient(settings.controller_url, token=settings.token, by=by)

    def up(self, tag: str | None, *, say: Callable[[str], None]) -> None:
        """Start everything and wait until it is ready; `tag` becomes stable when there is none yet.

        What runs already is left alone. Raises StackError, CommandRefused.
        """
        stable = self.stable()
        self._check_version(tag, stable)
        if not self.supervisor.is_running:
            self._start_processes(say)
        self._wait("the controller", self.client.is_ready, program="controller")
        if stable is None and tag is not None:
            self.client.set_stable(tag)
        elif tag not in (None, stable):
            say(f"{stable} is stable; to put {tag} on trial: kanaria release {tag}")
        self._wait("the stable version", self._serves, program=process_name(tag or stable or ""))

    def down(self, *, say: Callable[[str], None]) -> None:
        """Stop everything; a running release is aborted first, so that the next start begins with stable."""
        if not self.supervisor.is_running:
            say("nothing is running")
            return
        if self.client.is_ready() and (release := self.client.status().release):
            if release.phase in (Phase.STARTING.value, Phase.STEPPING.value):
                self.client.command("abort", reason="the stack was taken down")
                say(f"release {release.number} ({release.canary}) is aborted: the stack is taken down")
            elif release.phase == Phase.WATCHING.value:
                self.client.command("promote")
                say(f"the watch over {release.canary} is over: the stack is taken down")
        self.supervisor.shutdown()
        self.settings.forget_where_it_listens()
        say("stopped")

    def stable(self) -> str | None:
        """The stable version that the ledger knows; None before the first `up`."""
        if not self.settings.ledger.exists():
            return None
        ledger = Ledger(self.settings.ledger, read_only=True)
        try:
            return fold(ledger.events(without_ticks=True)).stable
        finally:
            ledger.close()

    def _check_version(self, tag: str | None, stable: str | None) -> None:
        """Refuse before anything starts what could not serve."""
        if tag is None and stable is None:
            raise SetupError(
                "there is no version to serve yet",
                saw="no stable version in the ledger",
                do="name the first one: `kanaria up TAG`",
            )
        known = bento_tags()
        for wanted in dict.fromkeys(filter(None, (stable, tag))):
            if wanted not in known:
                raise SetupError(
                    f"there is no Bento {wanted}",
                    saw=f"Bentos here: {', '.join(known) or 'none'}",
                    do="build it (`bentoml build --version ...`) or correct the tag",
                )

    def _start_processes(self, say: Callable[[str], None]) -> None:
        settings = self.settings
        ports = {"gateway": settings.gateway_port, "controller": settings.controller_port}
        if settings.prometheus_port is not None:
            ports["prometheus"] = settings.prometheus_port
        for name, port in ports.items():
            if not is_free(settings.host, port):
                raise SetupError(
                    f"the port of the {name} is taken",
                    saw=f"something listens on {settings.host}:{port}",
                    do=f"stop it, or set KANARIA_{name.upper()}_PORT to another port",
                )
        monitors = Monitors.find(settings)
        envoy_admin = free_port()
        gateway = gateway_settings(settings, envoy_admin)
        for left_over in (gateway.clusters_path, gateway.routes_path):
            left_over.unlink(missing_ok=True)  # they name ports of processes that are gone
        shutil.rmtree(settings.root / "versions", ignore_errors=True)
        write_bootstrap(gateway)
        settings.remember_where_it_listens()
        self.supervisor.start()
        self.supervisor.add(Program("gateway", envoy_command(gateway), priority=1))
        write_targets(settings, envoy_admin=envoy_admin)
        arguments = ["--envoy-admin", str(envoy_admin)]
        if monitors is not None:
            for program in monitors.programs():
                self.supervisor.add(program)
            arguments += ["--prometheus", str(monitors.prometheus_port)]
        say(f"metrics: {monitors.names if monitors else 'the built-in scraper'}")
        environment = {"KANARIA_HOME": str(settings.root)}
        self.supervisor.add(
            Program("controller", [sys.executable, "-m", "kanaria.serve", *arguments], environment, priority=2)
        )

    def _serves(self) -> bool:
        """Whether the gateway reaches a stable version that is ready."""
        status = self.client.status()
        if status.stable is None or status.stable.health != Health.READY.value:
            return False
        try:
            return httpx.get(f"{self.settings.gateway_url}/readyz", timeout=2.0, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def _wait(self, what: str, is_ready: Callable[[], bool], *, program: str) -> None:
        """Raises StackError with the last words of `program`; sooner for one that has crashed than for a slow one."""
        began_s = time.monotonic()
        limit_s = _READY_TIMEOUT_S
        while not is_ready():
            info = self.supervisor.info(program)
            took_s = time.monotonic() - began_s
            if info is not None and info.has_crashed:
                limit_s = min(limit_s, took_s + _SECOND_CHANCE_S)
            if took_s > limit_s:
                log = info.log if info else self.settings.logs / f"{program}.log"
                raise StackError(
                    f"{what} was not ready after {took_s:.0f} s",
                    saw=last_words(log) or "nothing in its log",
                    do=f"read {log} and mend the cause; then `kanaria down` and `kanaria up` again",
                )
            time.sleep(0.1)


def gateway_settings(settings: Settings, admin_port: int) -> GatewaySettings:
    """The gateway of this state folder."""
    return GatewaySettings(
        directory=settings.root / "gateway",
        host=settings.host,
        port=settings.gateway_port,
        admin_port=admin_port,
        api_keys=(settings.api_key,) if settings.needs_api_key else (),
    )
