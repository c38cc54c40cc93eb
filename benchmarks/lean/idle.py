"""A stack without traffic: how much of a core each of its processes uses, alone and with a canary that waits."""

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError
from kanaria.stack.ports import free_port
from kanaria.stack.processes import marked

_SETTLES_S = 15.0  # time for the first scrapes and probes, and for work that is done once


@dataclass(frozen=True, slots=True)
class Shares:
    """Percent of a core by program."""

    alone: Mapping[str, float]  # one version
    beside_canary: Mapping[str, float]  # the same with a second version in a paused release


def shares(stable: str, canary: str, folder: Path, seconds: float) -> Shares:
    """Measure each for this many seconds. Raises BenchmarkError."""
    with _stack(stable, folder) as kanaria:
        alone = _measured(folder, seconds)
        for words in (("release", canary), ("pause",)):
            kanaria(*words)
        return Shares(alone, _measured(folder, seconds))


def _measured(folder: Path, seconds: float) -> Mapping[str, float]:
    time.sleep(_SETTLES_S)
    before = _cpu_s(folder)
    time.sleep(seconds)
    after = _cpu_s(folder)
    return {name: 100 * (after[name] - before.get(name, 0.0)) / seconds for name in sorted(after)}


def _cpu_s(folder: Path) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for name, processes in marked(folder).items():
        for process in processes:
            times = process.cpu_times()
            found["version" if "@" in name else name] += times.user + times.system
    return found


@contextmanager
def _stack(tag: str, folder: Path) -> Iterator[Callable[..., None]]:
    """Run a stack; yields a function that runs a command for it."""
    own = {
        "KANARIA_HOME": str(folder),
        "KANARIA_GATEWAY_PORT": str(free_port()),
        "KANARIA_CONTROLLER_PORT": str(free_port()),
        "KANARIA_WORKERS": "1",
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kanaria", *words]
        return subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)

    def kanaria(*words: str) -> None:
        if (done := run(*words)).returncode:
            do = f"run `kanaria {' '.join(words)}`"
            raise BenchmarkError("a command for the stack failed", saw=done.stderr[-300:], do=do)

    try:
        kanaria("up", tag)
        yield kanaria
    finally:
        run("down")
