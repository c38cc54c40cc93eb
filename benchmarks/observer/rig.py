"""Two versions, the gateway in front of them and the observer beside it, as processes of this machine."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.errors import BenchmarkError
from benchmarks.service.wrk import Load, load
from contract import environment, loopback
from contract import metrics as m
from contract.own_answers import NO_ANSWERS, OwnAnswers
from kanaria.stack.observer_program import ObserverProgram
from kanaria.stack.ports import free_port
from kanaria.stack.shown_share import ShownShare
from rollout.fleet import Backend, Route, Service, Version
from rollout.observe import Observe
from rollout.routers.envoy import admin
from rollout.routers.envoy.bootstrap import envoy_command, write_bootstrap
from rollout.routers.envoy.router import EnvoyRouter
from rollout.routers.envoy.sampling import show
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split

PATH = "/predict"  # what the load generator asks
BODY = b'{"text": "what is this about?"}\n'
MEANING = OwnAnswers.model_validate({PATH: {"label": "label", "confidence": "confidence"}})
_SERVICE = Service((Route(PATH),), timeout_s=10.0)
_VERSIONS, _GATEWAY, _OBSERVER = "versions", "gateway", "observer"
_STARTS_IN_S = 30.0
_SETTLES_S = 2.0  # of load before a measurement: the gateway finds the observer healthy, the share adapts to it


@dataclass(frozen=True, slots=True)
class Situation:
    """What the gateway does with requests, and which answers it shows to the observer."""

    key: str
    title: str
    is_shadow: bool
    shown: Observe | float | None  # as in a plan; or a share that does not follow the traffic; None: no observer


@dataclass(frozen=True, slots=True)
class Result:
    """One load in one situation."""

    load: Load
    versions_cpu_us: float  # processor time for each request
    gateway_cpu_us: float
    observer_cpu_us: float
    seen: float  # share of the requests whose answers the observer read

    @property
    def cpu_us(self) -> float:
        """Of all together."""
        return self.versions_cpu_us + self.gateway_cpu_us + self.observer_cpu_us


@dataclass(frozen=True, slots=True)
class Rig:
    """Two versions, a gateway before them, and an observer."""

    settings: GatewaySettings
    versions: tuple[Version, Version]
    processes: Mapping[str, Sequence[psutil.Process]]  # by role
    page: str  # URL of the observer's counters

    def measure(self, situation: Situation, bodies: Path, *, connections: int, seconds: int) -> Result:
        """Load the gateway in one situation. Raises BenchmarkError, also when a request failed."""
        url = f"http://127.0.0.1:{self.settings.port}"
        with self._in(situation):
            load(url, bodies, connections=connections, seconds=math.ceil(_SETTLES_S))
            before, counted = self._cpu_s(), self._counted()
            measured = load(url, bodies, connections=connections, seconds=seconds)
            time.sleep(0.5)  # answers that still wait for the observer count, too
            after = self._cpu_s()
        used = {name: 1e6 * (after[name] - before[name]) / measured.requests for name in after}
        seen = (self._counted() - counted) / measured.requests
        return Result(measured, used[_VERSIONS], used[_GATEWAY], used[_OBSERVER], seen)

    @contextmanager
    def _in(self, situation: Situation) -> Iterator[None]:
        """Put a situation into force, and adapt its share to the traffic."""
        split = (
            Split(*self.versions, mirror=True) if situation.is_shadow else Split(*self.versions, 50, answers=MEANING)
        )
        settings = replace(self.settings, has_observer=situation.shown is not None)
        EnvoyRouter(settings).apply(split if situation.shown is not None else replace(split, answers=NO_ANSWERS))
        with ExitStack() as beside:
            if isinstance(situation.shown, Observe):
                wanted = situation.shown
                share = ShownShare(settings, wanted=lambda: wanted)
                beside.callback(share.stop)
                share.look()  # so that the next look knows how many requests came
                share.start()
            elif situation.shown is not None:
                with admin.client(settings, timeout_s=5.0) as client:
                    show(client, situation.shown)
            yield

    def _cpu_s(self) -> dict[str, float]:
        times = {name: [each.cpu_times() for each in all_of] for name, all_of in self.processes.items()}
        return {name: sum(each.user + each.system for each in of) for name, of in times.items()}

    def _counted(self) -> float:
        """Answers that were compared in the shadow, or whose classes were counted in a step, so far."""
        with loopback.client(timeout_s=10.0) as http:
            page = http.get(self.page).raise_for_status().text
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == m.PREDICTIONS.name
            or (sample.name == m.OBSERVER_ANSWERS.name and sample.labels["outcome"] == "compared")
        )


@contextmanager
def rig(folder: Path) -> Iterator[Rig]:
    """Start everything. Raises BenchmarkError.

    Args:
        folder: for logs and state; must not exist yet.
    """
    folder.mkdir()
    settings = GatewaySettings(folder / "gateway", port=free_port(), stats_port=free_port(), has_observer=True)
    with ExitStack() as processes:
        (stable, of_stable), (canary, of_canary) = (_version(tag, folder, processes) for tag in ("text:v1", "text:v2"))
        program = ObserverProgram.beside(settings, folder / "recorded", _records(folder))
        write_bootstrap(settings)
        command, variables = program.program().command, program.environment
        observer = processes.enter_context(_running(_OBSERVER, command, folder, variables))
        page = f"http://{program.address}/metrics"
        _wait(page, _OBSERVER, folder)
        envoy = processes.enter_context(_running(_GATEWAY, envoy_command(settings), folder))
        _wait(f"http://127.0.0.1:{settings.port}/livez", _GATEWAY, folder)
        own = {_VERSIONS: (of_stable, of_canary), _GATEWAY: (envoy,), _OBSERVER: (observer,)}
        yield Rig(settings, (stable, canary), own, page)


def _version(tag: str, folder: Path, processes: ExitStack) -> tuple[Version, psutil.Process]:
    port, name = free_port(), tag.replace(":", "-")
    command = [sys.executable, "-m", "uvicorn", "benchmarks.observer.backend:app", "--port", str(port)]
    process = processes.enter_context(_running(name, [*command, "--no-access-log", "--log-level", "warning"], folder))
    _wait(f"http://127.0.0.1:{port}/", name, folder)
    return Version((Backend(tag, "127.0.0.1", port),), _SERVICE), process


def _records(folder: Path) -> Mapping[str, str]:
    return {
        environment.ANSWERS_DIR: str(folder / "answers"),
        environment.PREDICTIONS_DIR: str(folder / "predictions"),
        environment.PREDICTION_LOG_MB: "64",
        environment.ANSWERS_KEY: "a key of the benchmark",
    }


@contextmanager
def _running(
    name: str, command: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None
) -> Iterator[psutil.Process]:
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(variables or {})})
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _wait(url: str, name: str, folder: Path) -> None:
    deadline_s = time.monotonic() + _STARTS_IN_S
    while not loopback.answers(url, timeout_s=1.0):
        if time.monotonic() > deadline_s:
            saw = (folder / f"{name}.log").read_text()[-500:]
            raise BenchmarkError(f"{name} does not start", saw=saw, do="see its output")
        time.sleep(0.05)
