"""Processes that are killed, hang or are started twice.

Each is a context manager: the fault happens on entry and is undone on exit.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psutil

from kanaria.stack.ports import free_port
from kanaria.stack.supervision import KEEPER
from tests.chaos.site import Site
from tests.chaos.states import CANARY
from tests.support.paths import ROOT

Strike = Callable[[Site], AbstractContextManager[None]]

_MEMORY = Path("/sys/fs/cgroup/memory")


def killed(*programs: str) -> Strike:
    """kill -9 of programs and all their child processes."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        kill(process for program in programs for process in site.tree(program))
        yield

    return strike


def hung(*programs: str) -> Strike:
    """SIGSTOP of programs and all their child processes, then SIGCONT."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        with stopped([process for program in programs for process in site.tree(program)]):
            yield

    return strike


def worker_killed(tag: str) -> Strike:
    """kill -9 of one worker; the process that holds the port survives."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        site.worker(tag).kill()
        yield

    return strike


def worker_hung(tag: str) -> Strike:
    """SIGSTOP of one worker, then SIGCONT."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        with stopped([site.worker(tag)]):
            yield

    return strike


@contextmanager
def worker_hung_until_down(site: Site) -> Iterator[None]:
    """The worker still hangs when the stack is taken down."""
    site.worker(CANARY).suspend()
    yield


@contextmanager
def left_alone(site: Site) -> Iterator[None]:
    """The keeper and the controller, which would restart it, are killed; then a person starts the stack."""
    with killed(KEEPER, "controller")(site):
        yield
    site.command("up")


def killed_while_hung(program: str, hung_program: str) -> Strike:
    """kill -9 of a program while another program, which would restart it, hangs."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        with hung(hung_program)(site), killed(program)(site):
            yield

    return strike


@contextmanager
def out_of_memory(site: Site) -> Iterator[None]:
    """The kernel kills each process of the canary that allocates another page."""
    group = _MEMORY / f"kanaria-chaos-{site.pid(CANARY)}"
    group.mkdir()
    for process in site.tree(CANARY):
        (group / "cgroup.procs").write_text(str(process.pid))
    (group / "memory.limit_in_bytes").write_text("0")
    try:
        yield
    finally:
        (group / "memory.limit_in_bytes").write_text("-1")
        for pid in (group / "cgroup.procs").read_text().split():
            (_MEMORY / "cgroup.procs").write_text(pid)
        group.rmdir()


@contextmanager
def rebooted(site: Site) -> Iterator[None]:
    """Every process is killed at once; then a person starts the stack."""
    kill_all(site)
    yield
    site.command("up")


@contextmanager
def rebooted_slowly(site: Site) -> Iterator[None]:
    """The same, with versions that take longer to load than `down_after`."""
    site.let_versions_load_slowly(7.0)
    with rebooted(site):
        yield


@contextmanager
def rebooted_twice(site: Site) -> Iterator[None]:
    """Two people start the stack at the same time."""
    kill_all(site)
    yield
    command = [sys.executable, "-m", "kanaria", "up"]
    environment = {**os.environ, **site.kanaria.environment}
    with (site.folder / "other-up.log").open("wb") as log:
        other = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
        mine = site.command("up", label="one `up`")
        site.commands["the other `up`"] = other.wait()
    if mine and site.commands["the other `up`"]:
        site.problems.append("neither `up` succeeded")


@contextmanager
def second_controller(site: Site) -> Iterator[None]:
    """Another controller is started on the same state folder."""
    command = psutil.Process(site.pid("controller")).cmdline()
    environment = {**os.environ, **site.kanaria.environment, "KANARIA_CONTROLLER_PORT": str(free_port())}
    with (site.folder / "second-controller.log").open("wb") as log:
        other = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
        try:
            yield
        finally:
            other.kill()
            other.wait()


def kill(processes: Iterator[psutil.Process] | list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def kill_all(site: Site) -> None:
    found = site.everything()
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.suspend()  # so that none starts another process
    kill(found)
    psutil.wait_procs(found, timeout=5.0)


@contextmanager
def stopped(processes: list[psutil.Process]) -> Iterator[None]:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def no_memory_group() -> str:
    return "" if os.access(_MEMORY / "cgroup.procs", os.W_OK) else "no control group can limit memory on this machine"
