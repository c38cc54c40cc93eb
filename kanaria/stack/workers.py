"""The workers of a version: how many a version gets, and which of them ended by themselves."""

import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

import psutil

from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack import model_server
from kanaria.stack.bentos import model_folder, model_of
from kanaria.stack.identity import start_of

_WORKER_BYTES = 400 * 2**20  # where nothing is shared, a torch service without a model takes about 310 MB
# In the command line of BentoML's workers and of none of its other children; a fork has that of its server.
_WORKER_WORDS = (".worker.", model_server.MODULE)


def workers_for(settings: Settings, tag: str) -> int:
    """How many workers each process of a version gets.

    Where it is not set: two, if that many of two versions fit into what memory is free now, else one. A worker is
    taken to need 400 MB and the size of its model.
    """
    if settings.workers is not None:
        return settings.workers
    needed = 2 * 2 * settings.replicas * (_WORKER_BYTES + _model_bytes(tag))
    return 2 if psutil.virtual_memory().available >= needed else 1


def _model_bytes(tag: str) -> int:
    try:
        return sum(file.stat().st_size for file in model_folder(model_of(tag)).rglob("*") if file.is_file())
    except (SetupError, OSError, KeyError):  # its server will say what is wrong with it
        return 0


class Workers:
    """Sees workers of servers end by themselves. BentoML replaces one only after ten seconds and more, ours at once."""

    def __init__(self) -> None:
        self._alive: dict[int, dict[int, float]] = {}  # when each started, by pid, by the pid of their server

    def ended(self, server: int) -> int:
        """How many workers of the process `server` ended since it was asked last; 0 at first.

        Those that nobody can look at just now are counted at a later look.
        """
        before = self._alive.get(server, {})
        try:
            # One that is ending has no command line any more before it has ended: it is not lost from sight meanwhile.
            alive = {pid: began for pid, began in before.items() if start_of(pid) == began}
            there = alive | _new_workers(server, known=alive)
            ended = len(before) - len(alive) if start_of(server) is not None else 0
        except OSError:
            return 0
        self._alive[server] = there
        return ended

    def forget(self, server: int) -> None:
        """It is being stopped."""
        self._alive.pop(server, None)


def _new_workers(server: int, *, known: Mapping[int, float]) -> dict[int, float]:
    """When each living worker of a server started that is not `known`, by pid."""
    found = {}
    with suppress(psutil.Error):
        for pid in set(_children(server)) - known.keys():
            with suppress(psutil.Error):  # a zombie has no command line
                is_worker = any(mark in word for word in psutil.Process(pid).cmdline() for mark in _WORKER_WORDS)
                if is_worker and (began := start_of(pid)) is not None:
                    found[pid] = began
    return found


def _children(server: int) -> Iterable[int]:
    """The children of a process, by pid.

    Linux keeps a list of them, without those that are just coming or going; a look later it is right. psutil would read
    about every process of the machine, which took a sixth of the controller's time.
    """
    texts: list[str] = []
    threads = f"/proc/{server}/task"
    with suppress(OSError):
        for thread in os.listdir(threads) if sys.platform == "linux" else ():  # noqa: PTH208 - a Path takes thrice as long
            with suppress(OSError), open(f"{threads}/{thread}/children") as file:  # noqa: PTH123 - likewise
                texts.append(file.read())  # the thread may have ended
    if not texts:  # a kernel that was built without them
        return [child.pid for child in psutil.Process(server).children()]
    return map(int, " ".join(texts).split())
