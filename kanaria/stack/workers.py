"""The workers of a version: decides their number, and counts those that end by themselves."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import psutil

from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack import model_server
from kanaria.stack.bentos import model_folder, model_of
from kanaria.stack.identity import start_of

_WORKER_BYTES = 400 * 2**20  # a torch service without a model takes about 310 MB if it shares no memory
# Words in the command line of BentoML's workers only. A forked worker has the command line of its server.
_WORKER_WORDS = (".worker.", model_server.MODULE)


def workers_for(settings: Settings, tag: str) -> int:
    """The number of workers for each process of a version.

    The default is two if that many workers of two versions fit into the free memory, else one. A worker is assumed to
    need 400 MB plus the size of its model.
    """
    if settings.workers is not None:
        return settings.workers
    needed = 2 * 2 * settings.replicas * (_WORKER_BYTES + _model_bytes(tag))
    return 2 if psutil.virtual_memory().available >= needed else 1


def _model_bytes(tag: str) -> int:
    try:
        return sum(file.stat().st_size for file in model_folder(model_of(tag)).rglob("*") if file.is_file())
    except (SetupError, OSError, KeyError):  # its server will report the error
        return 0


class Workers:
    """Counts workers that end by themselves. BentoML replaces one after ten seconds or more, our server at once."""

    def __init__(self) -> None:
        self._alive: dict[int, dict[int, float]] = {}  # by the server's pid: start time of each worker, by pid

    def ended(self, server: int) -> int:
        """How many workers of the process `server` ended since the last call; 0 at the first call.

        Workers that cannot be inspected now are counted by a later call.
        """
        before = self._alive.get(server, {})
        try:
            # An ending worker loses its command line before it ends, so known workers are followed by pid.
            alive = {pid: began for pid, began in before.items() if start_of(pid) == began}
            there = alive | _new_workers(server, known=alive)
            ended = len(before) - len(alive) if start_of(server) is not None else 0
        except OSError:
            return 0
        self._alive[server] = there
        return ended

    def forget(self, server: int) -> None:
        """Forget the workers of `server`, which is being stopped."""
        self._alive.pop(server, None)


def is_worker(command: Sequence[str]) -> bool:
    """Whether a child of a version's process with this command line is one of its workers."""
    return any(mark in word for word in command for mark in _WORKER_WORDS)


def _new_workers(server: int, *, known: Mapping[int, float]) -> dict[int, float]:
    """The start time of each living worker of a server that is not `known`, by pid."""
    found = {}
    with suppress(psutil.Error):
        for pid in set(_children(server)) - known.keys():
            with suppress(psutil.Error):  # a zombie has no command line
                if is_worker(psutil.Process(pid).cmdline()) and (began := start_of(pid)) is not None:
                    found[pid] = began
    return found


def _children(server: int) -> Iterable[int]:
    """The pids of a process's children.

    Linux has a list of them, which may miss children that start or end right now; the next call corrects that. psutil
    would read every process of the machine, which took a sixth of the controller's CPU time.
    """
    texts: list[str] = []
    threads = f"/proc/{server}/task"
    with suppress(OSError):
        for thread in os.listdir(threads) if sys.platform == "linux" else ():  # noqa: PTH208 - a Path takes three times as long
            with suppress(OSError), open(f"{threads}/{thread}/children") as file:  # noqa: PTH123 - likewise
                texts.append(file.read())  # raises OSError if the thread has ended
    if not texts:  # a kernel without these lists
        return [child.pid for child in psutil.Process(server).children()]
    return map(int, " ".join(texts).split())
