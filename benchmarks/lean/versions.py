"""A second version beside a running one: the cost with `bentoml serve` and with the stack's own server."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.errors import BenchmarkError
from contract import loopback
from contract.http import READY_PATH
from kanaria.stack import fork_server, model_server
from kanaria.stack.bentos import process_name, store
from kanaria.stack.ports import free_port
from kanaria.stack.processes import marked
from kanaria.stack.python import own_module
from kanaria.stack.supervision import KEEPER, Program, Supervisor

_STARTS_IN_S = 120.0


@dataclass(frozen=True, slots=True)
class Way:
    """A way to serve a Bento."""

    title: str
    module: tuple[str, ...]
    workers: int
    has_fork_server: bool = False


@dataclass(frozen=True, slots=True)
class Second:
    """The second version when it is ready."""

    pss_mb: float  # of its processes, each page divided by the number of processes that share it
    both_mb: float  # the same of both versions, with the fork server if there is one
    ready_s: float
    cpu_s: float  # of its processes until it was ready


WAYS = tuple(
    Way(f"{title}, {workers} worker{'s' if workers > 1 else ''}", module, workers, has_fork_server)
    for workers in (1, 2)
    for title, module, has_fork_server in (
        ("`bentoml serve`", ("bentoml", "serve"), False),
        ("workers forked by the version", (model_server.MODULE,), False),
        ("forked from the fork server", (model_server.MODULE,), True),
    )
)


def second(way: Way, tags: Sequence[str], folder: Path) -> Second:
    """Start two versions in the same way, one after the other, and measure the second. Raises BenchmarkError."""
    with TemporaryDirectory(dir=folder) as name:
        supervisor = Supervisor(Path(name), Path(name, "logs"))
        supervisor.start()
        try:
            first, _ = _started(supervisor, way, tags[0], Path(name))
            process, ready_s = _started(supervisor, way, tags[1], Path(name))
            family = [process, *process.children(recursive=True)]
            others = [first, *first.children(recursive=True), *_fork_servers(Path(name))]
            times = [one.cpu_times() for one in family]
            own_mb = _pss_mb(family)
            cpu_s = sum(time.user + time.system for time in times)
            return Second(own_mb, own_mb + _pss_mb(others), ready_s, cpu_s)
        finally:
            supervisor.shutdown()


def _started(supervisor: Supervisor, way: Way, tag: str, folder: Path) -> tuple[psutil.Process, float]:
    """The main process of a version, and how long it took to be ready."""
    name, port = process_name(tag), free_port()
    own = {
        "BENTOML_HOME": str(store()),
        "BENTOML_CONFIG_OVERRIDES": json.dumps({"services": {"predictor": {"workers": way.workers}}}),
        "BENTOML_DO_NOT_TRACK": "True",
        "KANARIA_ANSWERS_DIR": str(folder / "answers"),
        "KANARIA_PREDICTIONS_DIR": str(folder / "predictions"),
    }
    module, *words = way.module
    command = own_module(module, *words, tag, "--host", "127.0.0.1", "--port", str(port))
    # A version of a stack is confined; a version that is not confined is not forked either.
    began_s = time.monotonic()
    supervisor.add(Program(name, command, own, folder=str(folder), listed=(), is_confined=way.has_fork_server))
    log = folder / "logs" / f"{name}.log"
    _wait(log, way.workers)
    ready_s = time.monotonic() - began_s
    if not loopback.answers(f"http://127.0.0.1:{port}{READY_PATH}", timeout_s=5.0):
        raise BenchmarkError(f"{tag} is not ready", saw=log.read_text()[-300:], do=f"read {log}")
    info = supervisor.info(name)
    return psutil.Process(info.pid if info else None), ready_s


def _fork_servers(folder: Path) -> list[psutil.Process]:
    return [process for process in marked(folder).get(KEEPER, ()) if fork_server.MODULE in process.cmdline()]


def _pss_mb(processes: Sequence[psutil.Process]) -> float:
    return sum(process.memory_full_info().pss for process in processes) / 1e6


def _wait(log: Path, workers: int) -> None:
    """Wait until each worker has logged that its model is ready."""
    deadline_s = time.monotonic() + _STARTS_IN_S
    while not log.exists() or log.read_text().count('"event": "model_ready"') < workers:
        if time.monotonic() > deadline_s:
            raise BenchmarkError("a version does not start", saw=log.read_text()[-300:], do=f"read {log}")
        time.sleep(0.02)
