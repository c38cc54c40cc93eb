"""Starts a server, waits for its first answer, measures its processes and stops them."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.errors import BenchmarkError
from benchmarks.service.contenders import Contender
from benchmarks.service.subject import Subject
from contract import loopback

START_WITHIN_S = 120.0
STOP_WITHIN_S = 20.0
_POLL_S = 0.02
_PACKAGES = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers."""

    port: int
    startup_s: float  # from its start to its first answer
    labels: tuple[str, ...]  # of that answer
    process: psutil.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        """Processor time of all its processes so far, seconds."""
        return _sum(self.process, lambda one: one.cpu_times().user + one.cpu_times().system)

    def memory_mb(self) -> float:
        """Memory of all its processes, MB; shared memory counts once if the system can tell."""
        return _sum(self.process, _memory_bytes) / 1e6

    def worker_mb(self) -> float:
        """Memory of its largest process, MB: the one that holds the model."""
        family = (self.process, *self.process.children(recursive=True))
        return max(_memory_bytes(one) for one in family) / 1e6


@contextmanager
def serving(contender: Contender, subject: Subject, folder: Path, *, body: bytes) -> Iterator[Server]:
    """Run `contender` until the block ends.

    Args:
        folder: gets its log, and is the working folder of its processes.
        body: a request; the server is ready when it answers it.

    Raises: BenchmarkError when it ends or does not answer in time.
    """
    port = _free_port()
    log = folder / f"{contender.key}.log"
    began_s = time.monotonic()
    with log.open("wb") as output:
        process = psutil.Popen(
            contender.command(subject, port),
            cwd=folder,
            env={**environment(subject, folder), **contender.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # BentoML's workers have their own session. Linux divides a busy machine by session: each server gets one.
            start_new_session=True,
        )
    try:
        labels = _first_answer(process, port, body, log)
        yield Server(port, time.monotonic() - began_s, labels, process)
    finally:
        _stop(process)


def environment(subject: Subject, folder: Path) -> dict[str, str]:
    """The environment of every process of the benchmark."""
    return (
        os.environ
        | subject.environment
        | {
            "PYTHONPATH": os.pathsep.join((str(subject.code), str(_PACKAGES), os.environ.get("PYTHONPATH", ""))),
            "BENTOML_DO_NOT_TRACK": "True",
            "KANARIA_ANSWERS_DIR": str(folder / "answers"),  # separate from those of real clients
        }
    )


def _first_answer(process: psutil.Popen, port: int, body: bytes, log: Path) -> tuple[str, ...]:
    deadline = time.monotonic() + START_WITHIN_S
    with loopback.client(f"http://127.0.0.1:{port}", timeout_s=START_WITHIN_S) as client:
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                answer = client.post("/predict", content=body, headers={"content-type": "application/json"})
                if answer.is_success:
                    return tuple(prediction["label"] for prediction in answer.json()["predictions"])
            time.sleep(_POLL_S)
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    raise BenchmarkError(
        f"{log.stem} does not answer",
        saw=f"exit code {process.poll()}; its log ends: " + " | ".join(lines[-3:]),
        do=f"read {log}",
    )


def _stop(process: psutil.Popen) -> None:
    with suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        process.terminate()
        _, alive = psutil.wait_procs(family, timeout=STOP_WITHIN_S)
        for one in alive:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(alive)


def _sum(parent: psutil.Process, measure: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for one in (parent, *parent.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += measure(one)
    return total


def _memory_bytes(process: psutil.Process) -> float:
    memory = process.memory_full_info()
    return float(getattr(memory, "pss", memory.uss))  # only Linux knows the share of each process


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
