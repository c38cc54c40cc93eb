"""A stack that nobody asks: how much of a core each of its processes takes."""

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.errors import BenchmarkError
from kanaria.stack.ports import free_port
from kanaria.stack.processes import marked

_SETTLES_S = 15.0  # the first scrapes and probes, and what is done once


def shares(tag: str, folder: Path, seconds: float) -> Mapping[str, float]:
    """Percent of a core by program. Raises BenchmarkError."""
    with _stack(tag, folder):
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
def _stack(tag: str, folder: Path) -> Iterator[None]:
    own = {
        "KANARIA_HOME": str(folder),
        "KANARIA_GATEWAY_PORT": str(free_port()),
        "KANARIA_CONTROLLER_PORT": str(free_port()),
        "KANARIA_WORKERS": "1",
    }

    def kanaria(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kanaria", *words]
        return subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)

    try:
        if (done := kanaria("up", tag)).returncode:
            raise BenchmarkError("the stack does not start", saw=done.stderr[-300:], do="run `kanaria up`")
        yield
    finally:
        kanaria("down")
