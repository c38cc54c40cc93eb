"""The faults: what each does, when it strikes, whom it may hurt and for how long. A new fault is a row."""

import enum
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from kanaria.stack.ports import free_port
from tests.chaos.seen import Outcome
from tests.chaos.site import Site
from tests.chaos.states import (
    CANARY,
    IDLE,
    LEAVING,
    SHADOW,
    STABLE,
    STARTING,
    STEP_10,
    STEP_50,
    STEP_50_BAD,
    WATCHING,
    WATCHING_BAD,
    State,
)
from tests.support.paths import ROOT

HANGS_S = 8.0  # twice `down_after`
CLOCK = "clock"  # the file that says how far the wall clock is off
_BACK = frozenset[Outcome]({"rolled_back"})
_ONE_WORKER = {"KANARIA_WORKERS": "1"}  # of two, the other would answer everybody

Strike = Callable[[Site], AbstractContextManager[None]]


class Hurts(enum.Enum):
    """What a fault makes unable to serve."""

    NOBODY = "nothing that serves"
    GATEWAY = "the gateway"
    VERSION = "a version"
    EVERYBODY = "everything"  # until a person starts it again


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """A row of the table."""

    name: str
    does: str  # for the page
    strike: Strike  # entered: it strikes; left: it is undone
    states: tuple[State, ...]  # the most telling first: a run that is cut short has these
    lasts_s: float = 0.0
    hurts: Hurts = Hurts.NOBODY
    blinds_s: float = 0.0  # how long nothing can be decided, however well the controller is made
    ends: frozenset[Outcome] = frozenset()  # how a healthy release may end for it; empty: as without it
    is_of_canary: bool = False
    aborts: bool = False  # a release in its steps is aborted by it
    may_fail: frozenset[str] = frozenset()  # commands that need not succeed
    environment: Mapping[str, str] = field(default_factory=dict)
    room_mb: int | None = None  # the state folder is a file system of this size
    why_not_here: Callable[[], str] = lambda: ""  # why it cannot be made on this machine; empty: it can


# ---- how they are made


def killed(*programs: str) -> Strike:
    """kill -9 of programs and all below them."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        _kill(process for program in programs for process in site.tree(program))
        yield

    return strike


def hung(*programs: str) -> Strike:
    """SIGSTOP of programs and all below them, and SIGCONT."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        with _stopped([process for program in programs for process in site.tree(program)]):
            yield

    return strike


def worker_killed(tag: str) -> Strike:
    """kill -9 of one worker; the process that holds the port lives."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        site.worker(tag).kill()
        yield

    return strike


def worker_hung(tag: str) -> Strike:
    """SIGSTOP of one worker, and SIGCONT."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        with _stopped([site.worker(tag)]):
            yield

    return strike


@contextmanager
def worker_hung_for_good(site: Site) -> Iterator[None]:
    """It still hangs when the stack is taken down."""
    site.worker(CANARY).suspend()
    yield


@contextmanager
def keeper_killed(site: Site) -> Iterator[None]:
    """kill -9 of the process that keeps all others."""
    site.keeper().kill()
    yield


@contextmanager
def rebooted(site: Site) -> Iterator[None]:
    """Every process is gone at once; then a person starts the stack."""
    _kill_all(site)
    yield
    site.command("up")


@contextmanager
def rebooted_slowly(site: Site) -> Iterator[None]:
    """The same with versions that load longer than `down_after`."""
    site.let_versions_load_slowly(7.0)
    with rebooted(site):
        yield


@contextmanager
def rebooted_twice(site: Site) -> Iterator[None]:
    """Two people start the stack in the same moment."""
    _kill_all(site)
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
def taken_down(site: Site) -> Iterator[None]:
    """`kanaria down`, then `kanaria up`."""
    site.command("down", label="down in between")
    yield
    site.command("up")


@contextmanager
def disk_full(site: Site) -> Iterator[None]:
    """Not one byte is free where the state lies."""
    filler = site.home / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def disk_full_and_controller_killed(site: Site) -> Iterator[None]:
    """It has to recover without writing."""
    with disk_full(site):
        site.wait(1.0)
        _kill(site.tree("controller"))
        yield


@contextmanager
def ledger_locked(site: Site) -> Iterator[None]:
    """Another program holds SQLite's lock for writers."""
    other = sqlite3.connect(site.home / "ledger.db", isolation_level=None, timeout=30)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
    finally:
        other.close()


@contextmanager
def ledger_damaged(site: Site) -> Iterator[None]:
    """Its first pages are noise, and the controller has to read it again; a person puts a copy back."""
    with _copied(site):
        with (site.home / "ledger.db").open("r+b") as file:
            file.write(b"noise" * 1000)
        _kill(site.tree("controller"))
        yield


@contextmanager
def ledger_deleted(site: Site) -> Iterator[None]:
    """Its files are gone, and the controller has to read them again; a person puts a copy back."""
    with _copied(site):
        for path in site.home.glob("ledger.db*"):
            path.unlink()
        _kill(site.tree("controller"))
        yield


@contextmanager
def routes_cut(site: Site) -> Iterator[None]:
    """Half of the file that the gateway starts with, as a crash of the machine leaves it."""
    path = site.home / "gateway" / "routes.json"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    _kill(site.tree("gateway"))
    yield


@contextmanager
def versions_emptied(site: Site) -> Iterator[None]:
    """The files that say where versions listen hold nothing, and the controller has to read them again."""
    for path in site.home.glob("versions/*.json"):
        path.write_bytes(b"")
    _kill(site.tree("controller"))
    yield


def clock_set(shift_s: float) -> Strike:
    """The wall clock of every Python process jumps, for good; time as such goes on evenly."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        (site.folder / CLOCK).write_text(str(shift_s))
        yield

    return strike


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


@contextmanager
def promoted_too_late(site: Site) -> Iterator[None]:
    """A person promotes while the controller hangs, and reads that it failed; then the controller wakes up."""
    with _stopped(site.tree("controller")):
        if site.command("promote") == 0:
            site.problems.append("`promote` succeeded while the controller hung")
        yield


def _kill(processes: Iterator[psutil.Process] | list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _kill_all(site: Site) -> None:
    found = site.everything()
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.suspend()  # so that nobody starts another
    _kill(found)
    psutil.wait_procs(found, timeout=5.0)


@contextmanager
def _stopped(processes: list[psutil.Process]) -> Iterator[None]:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


@contextmanager
def _copied(site: Site) -> Iterator[None]:
    """A copy of the ledger is made before, and put back in the end."""
    ledger, copy = site.home / "ledger.db", site.folder / "copy.db"
    source, target = sqlite3.connect(ledger), sqlite3.connect(copy)
    source.backup(target)
    source.close()
    target.close()
    yield
    for path in site.home.glob("ledger.db-*"):
        path.unlink()
    shutil.copy(copy, site.home / "ledger.db.new")
    (site.home / "ledger.db.new").replace(ledger)
    with suppress(Exception):  # where it waits for a good ledger, it is started again all the same
        _kill(site.tree("controller"))


def _no_mount() -> str:
    return "" if os.geteuid() == 0 and shutil.which("mount") else "a small file system takes root to mount"


_MOVED_CLOCK = {
    "KANARIA_METRICS": "scrape",  # Prometheus would keep the right time
    "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).with_name("clock")), os.environ.get("PYTHONPATH")))),
}

# ---- the rows

FAULTS = (
    Fault(
        "controller killed",
        "kill -9 of the controller",
        killed("controller"),
        (STEP_50_BAD, STEP_50, LEAVING, WATCHING_BAD, WATCHING, SHADOW, STARTING, STEP_10),
        blinds_s=5.0,
    ),
    Fault(
        "controller hangs",
        f"SIGSTOP of the controller for {HANGS_S:g} s",
        hung("controller"),
        (STEP_50_BAD, WATCHING, WATCHING_BAD, STEP_50, STARTING, LEAVING),
        lasts_s=HANGS_S,
        blinds_s=HANGS_S,
    ),
    Fault(
        "gateway killed",
        "kill -9 of the gateway",
        killed("gateway"),
        (STEP_50, IDLE, WATCHING, STEP_50_BAD, SHADOW, LEAVING),
        hurts=Hurts.GATEWAY,
        blinds_s=2.0,
    ),
    Fault(
        "stable killed",
        "kill -9 of all processes of the version that is stable before the release",
        killed(STABLE),
        (STEP_50, IDLE, SHADOW, STEP_50_BAD, WATCHING),
        hurts=Hurts.VERSION,
        blinds_s=10.0,  # there is nothing to go back to until it has loaded again
    ),
    Fault(
        "replica of stable killed",
        "kill -9 of one of stable's two processes, with all below it (`KANARIA_REPLICAS=2`)",
        killed(STABLE),
        (IDLE, SHADOW, STEP_50),
        hurts=Hurts.VERSION,
        environment=_ONE_WORKER | {"KANARIA_REPLICAS": "2"},
    ),
    Fault(
        "canary killed",
        "kill -9 of all processes of the canary",
        killed(CANARY),
        (STEP_50, WATCHING, STEP_10, SHADOW, STARTING),
        hurts=Hurts.VERSION,
        ends=_BACK,
        is_of_canary=True,
    ),
    Fault(
        "worker of stable killed",
        "kill -9 of one process of stable that answers requests; the one that holds the port lives",
        worker_killed(STABLE),
        (STEP_50, IDLE, SHADOW),
        hurts=Hurts.VERSION,
    ),
    Fault(
        "worker of the canary killed",
        "the same with the canary, which has no other",
        worker_killed(CANARY),
        (STEP_50, WATCHING, SHADOW),
        hurts=Hurts.VERSION,
        ends=frozenset({"rolled_back", "running"}),
        is_of_canary=True,
        environment=_ONE_WORKER,
    ),
    Fault(
        "worker of stable hangs",
        f"SIGSTOP of one process of stable that answers requests for {HANGS_S:g} s",
        worker_hung(STABLE),
        (STEP_50, SHADOW),
        lasts_s=HANGS_S,
        hurts=Hurts.VERSION,
    ),
    Fault(
        "worker of the canary hangs",
        "the same with the canary, which has no other",
        worker_hung(CANARY),
        (WATCHING, STEP_50),
        lasts_s=HANGS_S,
        hurts=Hurts.VERSION,
        ends=_BACK,
        is_of_canary=True,
        environment=_ONE_WORKER,
    ),
    Fault(
        "worker of the canary hangs until `down`",
        "the same for good: `down` has to end it",
        worker_hung_for_good,
        (STEP_50,),
        hurts=Hurts.VERSION,
        ends=_BACK,
        is_of_canary=True,
        environment=_ONE_WORKER,
    ),
    Fault(
        "canary hangs",
        f"SIGSTOP of all processes of the canary for {HANGS_S:g} s",
        hung(CANARY),
        (WATCHING, STEP_50, SHADOW),
        lasts_s=HANGS_S,
        hurts=Hurts.VERSION,
        ends=_BACK,
        is_of_canary=True,
    ),
    Fault(
        "keeper killed",
        "kill -9 of the process that keeps all others, as when memory runs out",
        keeper_killed,
        (STEP_50_BAD, STEP_50, IDLE, WATCHING, LEAVING),
        blinds_s=5.0,
    ),
    Fault(
        "Prometheus killed",
        "kill -9 of Prometheus",
        killed("prometheus"),
        (STEP_50_BAD, WATCHING_BAD, STEP_50, SHADOW),
    ),
    Fault(
        "Prometheus hangs",
        f"SIGSTOP of Prometheus for {HANGS_S:g} s",
        hung("prometheus"),
        (WATCHING_BAD, STEP_50_BAD, STEP_50),
        lasts_s=HANGS_S,
    ),
    Fault("Alertmanager killed", "kill -9 of Alertmanager", killed("alertmanager"), (STEP_50,)),
    Fault(
        "reboot",
        "kill -9 of everything at once, then `kanaria up`",
        rebooted,
        (STEP_50_BAD, STEP_50, WATCHING, LEAVING, WATCHING_BAD, SHADOW, STARTING, IDLE),
        lasts_s=1.0,
        hurts=Hurts.EVERYBODY,
    ),
    Fault(
        "reboot, slow versions",
        "the same, and from then on a version needs 7 s longer to load, more than `down_after`",
        rebooted_slowly,
        (STEP_50, WATCHING),
        lasts_s=1.0,
        hurts=Hurts.EVERYBODY,
    ),
    Fault(
        "reboot, two `up`",
        "the same with two `kanaria up` in the same moment",
        rebooted_twice,
        (STEP_50, IDLE),
        lasts_s=1.0,
        hurts=Hurts.EVERYBODY,
        may_fail=frozenset({"one `up`", "the other `up`"}),
    ),
    Fault(
        "down and up",
        "`kanaria down`, then `kanaria up`",
        taken_down,
        (STEP_50, WATCHING_BAD, STARTING, WATCHING, SHADOW, LEAVING),
        hurts=Hurts.EVERYBODY,
        aborts=True,
    ),
    Fault(
        "disk full",
        f"no byte is free in the state folder for {HANGS_S:g} s",
        disk_full,
        (STEP_50_BAD, WATCHING_BAD, LEAVING, STEP_50, STARTING),
        lasts_s=HANGS_S,
        room_mb=96,
        why_not_here=_no_mount,
    ),
    Fault(
        "disk full, controller killed",
        "the same, and kill -9 of the controller",
        disk_full_and_controller_killed,
        (STEP_50_BAD, WATCHING),
        lasts_s=HANGS_S,
        blinds_s=6.0,
        room_mb=96,
        why_not_here=_no_mount,
    ),
    Fault(
        "ledger locked",
        f"another program holds SQLite's lock for writers for {HANGS_S:g} s",
        ledger_locked,
        (STEP_50_BAD, WATCHING_BAD, STEP_50, LEAVING),
        lasts_s=HANGS_S,
    ),
    Fault(
        "ledger damaged",
        "noise over the start of the ledger, and kill -9 of the controller; a copy is put back after 6 s",
        ledger_damaged,
        (STEP_50, WATCHING, IDLE),
        lasts_s=6.0,
    ),
    Fault(
        "ledger deleted",
        "no ledger any more, and kill -9 of the controller; a copy is put back after 6 s",
        ledger_deleted,
        (STEP_50, IDLE),
        lasts_s=6.0,
    ),
    Fault(
        "routes cut, gateway killed",
        "half of the gateway's routes file is gone, and kill -9 of the gateway",
        routes_cut,
        (STEP_50, WATCHING, IDLE),
        hurts=Hurts.GATEWAY,
    ),
    Fault(
        "version files empty, controller killed",
        "the files that say where versions listen are empty, and kill -9 of the controller",
        versions_emptied,
        (STEP_50, WATCHING),
    ),
    Fault(
        "clock 1 h forward",
        "the machine's wall clock is set one hour forward",
        clock_set(3600),
        (WATCHING, STEP_50, WATCHING_BAD, STEP_50_BAD),
        environment=_MOVED_CLOCK,
    ),
    Fault(
        "clock 1 h back",
        "the machine's wall clock is set one hour back",
        clock_set(-3600),
        (STEP_50, STEP_50_BAD, WATCHING_BAD),
        environment=_MOVED_CLOCK,
    ),
    Fault(
        "second controller",
        "another controller is started on the same state folder, and killed after 6 s",
        second_controller,
        (STEP_50_BAD, STEP_50, IDLE),
        lasts_s=6.0,
    ),
    Fault(
        "late promote",
        "`kanaria promote` while the controller hangs, until the command gives up",
        promoted_too_late,
        (STEP_50,),
        may_fail=frozenset({"promote"}),
    ),
)
