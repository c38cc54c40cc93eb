"""The slowest of a hundred lone requests: two servers run at the same time, and each is loaded for a second in turn."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.priority import ahead_of_others
from benchmarks.service.contenders import Contender
from benchmarks.service.servers import serving
from benchmarks.service.subject import Subject
from benchmarks.service.visits import BUSY, WARM_UP_S
from benchmarks.service.wrk import Load, load

TURN_S = 1


@dataclass(frozen=True, slots=True)
class Turn:
    """One second of each server."""

    loads: Mapping[str, Load]  # by the server's key
    is_ahead: bool  # whether it had priority over other work on the machine


def turns(contenders: Sequence[Contender], subject: Subject, folder: Path, count: int) -> Iterator[Turn]:
    """Ask each server `count` times, over one connection. Raises BenchmarkError, SamplesError."""
    bodies = folder / "bodies.jsonl"
    subject.write_bodies(bodies, 1)
    question = bodies.read_bytes().splitlines()[0]
    with ExitStack() as opened:
        servers = {one.key: opened.enter_context(serving(one, subject, folder, body=question)) for one in contenders}
        for server in servers.values():
            load(server.url, bodies, connections=BUSY.connections, seconds=WARM_UP_S)
        processes = [
            process
            for server in servers.values()
            for process in (server.process, *server.process.children(recursive=True))
        ]
        is_ahead = opened.enter_context(ahead_of_others(*processes))
        keys = [*servers]
        for number in range(count):
            first = number % len(keys)
            order = (*keys[first:], *keys[:first])
            yield Turn({key: load(servers[key].url, bodies, connections=1, seconds=TURN_S) for key in order}, is_ahead)
