"""Two versions, the gateway in front of them and the observer beside it, as processes of this machine."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.errors import BenchmarkError
from benchmarks.service.wrk import Load, load
from contract import environment, loopback
from contract import metrics as m
from contract.own_answers import OwnAnswers
from kanaria.stack.observer_program import ObserverProgram
from kanaria.stack.ports import free_port
from rollout.fleet import Backend, Route, Service, Version
from rollout.routers.envoy.bootstrap import envoy_command, write_bootstrap
from rollout.routers.envoy.router import EnvoyRouter
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split

PATH = "/predict"  # what the load generator asks
BODY = b'{"text": "what is this about?"}\n'
MEANING = OwnAnswers.model_validate({PATH: {"label": "label", "confidence": "confidence"}})
_SERVICE = Service((Route(PATH),), timeout_s=10.0)
_STARTS_IN_S = 30.0
_SETTLES_S = 2.0  # the gateway's first health check of the observer, and the observer's look at what answers mean


@dataclass(frozen=True, slots=True)
class Situation:
    """What the gateway does with requests, and whether an observer is there."""

    key: str
    title: str
    is_shadow: bool
    has_observer: bool


@dataclass(frozen=True, slots=True)
class Result:
    """One load in one situation."""

    load: Load
    gateway_cpu_us: float  # processor time for each request
    observer_cpu_us: float
    seen: float  # share of the requests whose answers the observer took in


@dataclass(frozen=True, slots=True)
class Rig:
    """A gateway that serves."""

    url: str
    gateway: psutil.Process
    observer: psutil.Process | None
    page: str  # of what the observer counted

    def measure(self, bodies: Path, *, connections: int, seconds: int) -> Result:
        """Load it for a while. Raises BenchmarkError, also where a request failed."""
        before = self._cpu_s(), self._counted()
        measured = load(self.url, bodies, connections=connections, seconds=seconds)
        time.sleep(0.5)  # what waits for the observer belongs to it
        after = self._cpu_s(), self._counted()
        gateway_s, observer_s = (late - early for early, late in zip(before[0], after[0], strict=True))
        per_request = 1e6 / measured.requests
        seen = (after[1] - before[1]) / measured.requests
        return Result(measured, gateway_s * per_request, observer_s * per_request, seen)

    def _cpu_s(self) -> tuple[float, float]:
        processes = self.gateway, self.observer
        times = [process.cpu_times() if process else None for process in processes]
        gateway_s, observer_s = (time.user + time.system if time else 0.0 for time in times)
        return gateway_s, observer_s

    def _counted(self) -> float:
        """Answers that were compared in the shadow, or whose classes were counted in a step, so far."""
        if self.observer is None:
            return 0.0
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
def rig(situation: Situation, folder: Path) -> Iterator[Rig]:
    """Start everything for one situation. Raises BenchmarkError.

    Args:
        folder: for logs and state; made anew.
    """
    folder.mkdir()
    gateway = GatewaySettings(
        folder / "gateway", port=free_port(), stats_port=free_port(), has_observer=situation.has_observer
    )
    with ExitStack() as processes:
        stable, canary = (_version(tag, folder, processes) for tag in ("text:v1", "text:v2"))
        program = ObserverProgram.beside(gateway, folder / "recorded", _records(folder))
        write_bootstrap(gateway)
        observer = None
        if situation.has_observer:
            command, variables = program.program().command, program.environment
            observer = processes.enter_context(_running("observer", command, folder, variables))
            _wait(f"http://{program.address}/metrics", "observer", folder)
        envoy = processes.enter_context(_running("gateway", envoy_command(gateway), folder))
        _wait(f"http://127.0.0.1:{gateway.port}/livez", "gateway", folder)
        split = (
            Split(stable, canary, mirror=True) if situation.is_shadow else Split(stable, canary, 50, answers=MEANING)
        )
        EnvoyRouter(gateway).apply(split)
        time.sleep(_SETTLES_S)
        page = f"http://{program.address}/metrics"
        yield Rig(f"http://127.0.0.1:{gateway.port}", envoy, observer, page)


def _version(tag: str, folder: Path, processes: ExitStack) -> Version:
    port, name = free_port(), tag.replace(":", "-")
    command = [sys.executable, "-m", "uvicorn", "benchmarks.observer.backend:app", "--port", str(port)]
    processes.enter_context(_running(name, [*command, "--no-access-log", "--log-level", "warning"], folder))
    _wait(f"http://127.0.0.1:{port}/", name, folder)
    return Version((Backend(tag, "127.0.0.1", port),), _SERVICE)


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
