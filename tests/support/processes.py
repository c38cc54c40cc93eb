"""Small processes, a keeper for them, and waiting for conditions."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil

from kanaria.stack import locks
from kanaria.stack.processes import KEPT_AS, KEPT_IN
from kanaria.stack.supervision import ProcessInfo, Program, Supervisor

T = TypeVar("T")

SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
)
# A worker in its own session, which its parent can no longer find by its process group.
_START_WORKER = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)"
WITH_WORKER = (sys.executable, "-c", f"import subprocess, sys, time; {_START_WORKER}; time.sleep(600)")


def until(seen: Callable[[], T], *, limit_s: float = 60.0) -> T:
    """Wait for a true value and return it."""
    deadline = time.monotonic() + limit_s
    while not (value := seen()):
        assert time.monotonic() < deadline, f"not within {limit_s:.0f} s"
        time.sleep(0.02)
    return value


class Kept:
    """A state folder with a keeper; the test process itself acts as the commands and the controller."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.supervisor = Supervisor(home, home / "logs")

    def run(self, name: str, command: tuple[str, ...] = SLEEPER, **options: object) -> int:
        """Add a program and return the pid of its process once there is one."""
        self.supervisor.add(Program(name, command, **options))  # type: ignore[arg-type]
        return self.pid(name)

    def pid(self, name: str, *, other_than: int = 0) -> int:
        """The pid of a program, once it has one."""
        return until(lambda: (info := self.info(name)) and info.pid != other_than and info.pid)

    def info(self, name: str) -> ProcessInfo | None:
        return self.supervisor.info(name)

    @property
    def keeper(self) -> int:
        """The pid of the keeper."""
        found = locks.holder(self.home / "keeper.lock")
        assert found is not None
        return found.pid

    def kill_keeper(self) -> None:
        pid = self.keeper
        os.kill(pid, signal.SIGKILL)
        until(lambda: not self.supervisor.is_running)

    def clear(self) -> None:
        """End all running processes and remove their files."""
        if not self.supervisor.is_running:
            self.supervisor.shutdown()
            return
        for name in self.supervisor.names():
            self.supervisor.stop(name)
        until(lambda: not self.supervisor.alive() and not list((self.home / "processes").glob("*.json")))

    def everything(self, name: str | None = None) -> list[psutil.Process]:
        """All processes that were started for this state folder, or as one program, whoever supervises them."""
        mark = {KEPT_IN: str(self.home.resolve())} | ({KEPT_AS: name} if name else {})
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if mark.items() <= process.environ().items() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found
