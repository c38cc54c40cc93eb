"""What each part of the gateway costs a lone request: the same gateway without one part, in turn."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.errors import BenchmarkError
from benchmarks.priority import ahead_of_others
from benchmarks.service.wrk import load
from contract import loopback
from contract.http import API_KEY_HEADER, LIVE_PATH
from kanaria.stack.ports import free_port
from rollout.fleet import Backend, Version
from rollout.routers.envoy.bootstrap import envoy_command, write_bootstrap
from rollout.routers.envoy.router import EnvoyRouter
from rollout.routers.envoy.routes import BODY_FILTER, HEADERS_FILTER, READY_FILTER
from rollout.routers.envoy.settings import ApiKey, GatewaySettings
from rollout.routers.router import Split

_KEY = "bench"
_STARTS_IN_S = 60.0
_Manager = dict[str, Any]  # Envoy's connection manager, its configuration as JSON


def _without(*filters: str) -> Callable[[_Manager], None]:
    def change(manager: _Manager) -> None:
        kept = [one for one in manager["http_filters"] if not one["name"].endswith(filters)]
        manager["http_filters"] = kept

    return change


def _without_log(manager: _Manager) -> None:
    manager["access_log"] = []
    for one in manager["http_filters"]:
        one.get("typed_config", {}).pop("upstream_log", None)


def _bare(manager: _Manager) -> None:
    _without("_key", BODY_FILTER, HEADERS_FILTER, READY_FILTER)(manager)
    _without_log(manager)


WHOLE, DIRECT = "the whole gateway", "no gateway"
PARTS: Mapping[str, Callable[[_Manager], None]] = {
    WHOLE: lambda _: None,
    "without keys": _without("_key"),
    "without the buffer of bodies": _without(BODY_FILTER),
    "without telling callers apart": _without(HEADERS_FILTER),
    "without the answer to probes": _without(READY_FILTER),
    "without counters of evidence": _without_log,
    "a bare proxy": _bare,
}


@dataclass(frozen=True, slots=True)
class Result:
    """One load of one gateway."""

    p50_us: float
    cpu_us: float  # of Envoy, for each request; 0 without it


def rounds(folder: Path, count: int, seconds: int) -> Iterator[Mapping[str, Result]]:
    """Load each gateway in turn, one connection. Raises BenchmarkError."""
    bodies = folder / "bodies.jsonl"
    bodies.write_bytes(b'{"features": [[' + b",".join([b"1"] * 64) + b"]]}\n")
    with ExitStack() as opened:
        backend, behind = opened.enter_context(_backend(folder))
        gateways = {
            name: opened.enter_context(_gateway(folder / f"gateway-{number}", backend, change))
            for number, (name, change) in enumerate(PARTS.items())
        }
        opened.enter_context(ahead_of_others(behind, *(process for _, process in gateways.values())))
        names = [*PARTS, DIRECT]
        for number in range(count):
            first = number % len(names)
            found = {}
            for name in (*names[first:], *names[:first]):
                port, process = gateways.get(name, (backend, None))
                found[name] = _measured(port, process, bodies, seconds)
            yield found


def _measured(port: int, process: psutil.Process | None, bodies: Path, seconds: int) -> Result:
    before_s = _cpu_s(process)
    done = load(f"http://127.0.0.1:{port}", bodies, connections=1, seconds=seconds, headers={API_KEY_HEADER: _KEY})
    return Result(done.p50_us, (_cpu_s(process) - before_s) / done.requests * 1e6)


def _cpu_s(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def _gateway(folder: Path, backend: int, change: Callable[[_Manager], None]) -> Iterator[tuple[int, psutil.Process]]:
    settings = GatewaySettings(folder, port=free_port(), stats_port=free_port(), api_keys=(ApiKey(_KEY),))
    path = write_bootstrap(settings)
    bootstrap = json.loads(path.read_text())
    change(bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"])
    path.write_text(json.dumps(bootstrap))
    with _running(envoy_command(settings), folder / "envoy.log") as process:
        _wait(f"http://127.0.0.1:{settings.port}{LIVE_PATH}", folder / "envoy.log")
        EnvoyRouter(settings).apply(Split(Version((Backend("bench:v1", "127.0.0.1", backend),))))
        yield settings.port, process


@contextmanager
def _backend(folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    port, log = free_port(), folder / "backend.log"
    words = ["uvicorn", "benchmarks.observer.backend:app", "--port", str(port), "--no-access-log"]
    with _running([sys.executable, "-m", *words], log) as process:
        _wait(f"http://127.0.0.1:{port}/", log)
        yield port, process


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[psutil.Process]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=dict(os.environ))
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _wait(url: str, log: Path) -> None:
    deadline_s = time.monotonic() + _STARTS_IN_S
    while not loopback.answers(url, timeout_s=1.0):
        if time.monotonic() > deadline_s:
            raise BenchmarkError("a gateway does not start", saw=log.read_text()[-300:], do=f"read {log}")
        time.sleep(0.05)
