"""Visits to servers: starts and loads the contenders one after another, in every round: A B C, B C A, ...

Other work that slows the machine for a while then slows one round, not one contender.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.service.contenders import OURS, Contender
from benchmarks.service.servers import Server, environment, serving
from benchmarks.service.subject import Subject
from benchmarks.service.wrk import Load, load

WARM_UP_S = 1
GATEWAY_CONNECTIONS = 8
_RAW_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load."""

    key: str
    title: str
    rows: int  # in each request
    connections: int


ALONE = Case("alone", "1 row, c=1", 1, 1)
BUSY = Case("busy", "1 row, c=16", 1, 16)
ROWS = Case("rows", "32 rows, c=4", 32, 4)
CASES = (ALONE, BUSY, ROWS)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one contender under one load."""

    load: Load
    cpu_us: float  # processor time of all its processes, for each request


@dataclass(frozen=True, slots=True)
class Visit:
    """One contender in one round."""

    round: int
    contender: Contender
    startup_s: float
    memory_mb: float  # of all its processes
    worker_mb: float  # of the process that holds the model
    results: Mapping[str, Result]  # by the key of the case
    raw_rows_per_s: float | None = None  # of the model without a server; only for ours
    gateway_ms: float | None = None  # what the gateway adds to the median; only for ours


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway in front of a server."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)  # required in each request


OpenGateway = Callable[[int, Path], AbstractContextManager[Gateway]]  # for a server's port, with a folder to use


def visit_all(
    contenders: Sequence[Contender],
    subject: Subject,
    folder: Path,
    *,
    rounds: int,
    seconds: int,
    open_gateway: OpenGateway | None = None,
) -> Iterator[Visit]:
    """Visit every contender in every round.

    Args:
        folder: for the logs and the request bodies; exists.
        seconds: how long each load lasts.
        open_gateway: runs the gateway in front of our server; None: no gateway.

    Raises: BenchmarkError, SamplesError.
    """
    bodies = {case.rows: folder / f"{case.rows}.jsonl" for case in CASES}
    for rows, path in bodies.items():
        subject.write_bodies(path, rows)
    question = bodies[ALONE.rows].read_bytes().splitlines()[0]
    expected: tuple[str, ...] | None = None
    for number in range(rounds):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            with serving(contender, subject, folder, body=question) as server:
                expected = expected or server.labels
                if server.labels != expected:
                    raise BenchmarkError(
                        f"{contender.title} does not serve the same model",
                        saw=f"labels {server.labels}, the first server answered {expected}",
                        do="check that all load the model of one Bento",
                    )
                load(server.url, bodies[ALONE.rows], connections=BUSY.connections, seconds=WARM_UP_S)
                results = {case.key: _measure(server, bodies[case.rows], case.connections, seconds) for case in CASES}
                gateway_ms = None
                if contender is OURS and open_gateway is not None:
                    with open_gateway(server.port, folder) as gateway:
                        gateway_ms = _added_ms(server, gateway, bodies[ALONE.rows], seconds)
                memory_mb, worker_mb = server.memory_mb(), server.worker_mb()
            raw = _raw_rows_per_s(subject, bodies[ROWS.rows], seconds) if contender is OURS else None
            yield Visit(number, contender, server.startup_s, memory_mb, worker_mb, results, raw, gateway_ms)


def _measure(server: Server, bodies: Path, connections: int, seconds: int) -> Result:
    cpu_s = server.cpu_s()
    measured = load(server.url, bodies, connections=connections, seconds=seconds)
    return Result(measured, (server.cpu_s() - cpu_s) / measured.requests * 1e6)


def _added_ms(server: Server, gateway: Gateway, bodies: Path, seconds: int) -> float:
    def p50_ms(url: str, headers: Mapping[str, str]) -> float:
        measured = load(url, bodies, connections=GATEWAY_CONNECTIONS, seconds=seconds, headers=headers)
        return measured.p50_us / 1e3

    p50_ms(gateway.url, gateway.headers)  # opens its connections to the server
    direct_ms = p50_ms(server.url, {})
    return p50_ms(gateway.url, gateway.headers) - direct_ms


def _raw_rows_per_s(subject: Subject, bodies: Path, seconds: int) -> float:
    """Rows per second of the model alone, in a separate process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.service.peers.raw", str(bodies), str(seconds)],
        env=environment(subject, bodies.parent),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + _RAW_TIMEOUT_S,
    )
    if done.returncode:
        saw = done.stderr.strip().rpartition("\n")[2]
        raise BenchmarkError("the model cannot be run without a server", saw=saw, do="check that its class loads")
    return float(done.stdout)
