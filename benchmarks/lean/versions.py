"""A second version beside a running one: what `bentoml serve` takes for it, and what the stack's own server takes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.errors import BenchmarkError
from contract import loopback
from contract.http import READY_PATH
from kanaria.stack import model_server
from kanaria.stack.ports import free_port

_STARTS_IN_S = 120.0


@dataclass(frozen=True, slots=True)
class Way:
    """A way to serve a Bento."""

    title: str
    module: tuple[str, ...]
    workers: int


@dataclass(frozen=True, slots=True)
class Second:
    """The second version, once it was ready."""

    pss_mb: float  # of its processes, each page divided by the number of processes that have it
    ready_s: float
    cpu_s: float  # until it was ready


WAYS = tuple(
    Way(f"{title}, {workers} worker{'s' if workers > 1 else ''}", module, workers)
    for workers in (1, 2)
    for title, module in (("`bentoml serve`", ("bentoml", "serve")), ("forked", (model_server.MODULE,)))
)


def second(way: Way, tags: Sequence[str], folder: Path) -> Second:
    """Start two versions in the same way, one after the other, and measure the second. Raises BenchmarkError."""
    with _ready(way, tags[0], folder), _ready(way, tags[1], folder) as (process, ready_s):
        family = [process, *process.children(recursive=True)]
        times = [one.cpu_times() for one in family]
        pss_bytes = sum(one.memory_full_info().pss for one in family)
        return Second(pss_bytes / 1e6, ready_s, sum(time.user + time.system for time in times))


@contextmanager
def _ready(way: Way, tag: str, folder: Path) -> Iterator[tuple[psutil.Process, float]]:
    port, log = free_port(), folder / "version.log"
    own = {
        "BENTOML_CONFIG_OVERRIDES": json.dumps({"services": {"predictor": {"workers": way.workers}}}),
        "BENTOML_DO_NOT_TRACK": "True",
        "KANARIA_ANSWERS_DIR": str(folder / "answers"),
        "KANARIA_PREDICTIONS_DIR": str(folder / "predictions"),
    }
    command = [sys.executable, "-P", "-m", *way.module, tag, "--host", "127.0.0.1", "--port", str(port)]
    began_s = time.monotonic()
    with log.open("wb") as output:
        process = psutil.Popen(command, env={**os.environ, **own}, stdout=output, stderr=subprocess.STDOUT, cwd=folder)
    try:
        _wait(log, way.workers)
        ready_s = time.monotonic() - began_s
        if not loopback.answers(f"http://127.0.0.1:{port}{READY_PATH}", timeout_s=5.0):
            raise BenchmarkError(f"{tag} is not ready", saw=log.read_text()[-300:], do=f"read {log}")
        yield process, ready_s
    finally:
        process.terminate()
        process.wait()


def _wait(log: Path, workers: int) -> None:
    """Until each worker has said that its model is ready."""
    deadline_s = time.monotonic() + _STARTS_IN_S
    while log.read_text().count('"event": "model_ready"') < workers:
        if time.monotonic() > deadline_s:
            raise BenchmarkError("a version does not start", saw=log.read_text()[-300:], do=f"read {log}")
        time.sleep(0.02)
