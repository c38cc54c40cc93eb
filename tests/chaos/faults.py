"""The faults: what each does, in which states, what it may make unavailable and for how long. Add a fault as a row."""

import enum
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kanaria.stack.supervision import KEEPER
from tests.chaos.on_files import (
    disk_full,
    disk_full_and_controller_killed,
    disk_hangs,
    disk_read_only,
    ledger_damaged,
    ledger_deleted,
    ledger_locked,
    metrics_damaged,
    metrics_deleted,
    no_image,
    no_inodes,
    no_mount,
    routes_cut,
    state_moved,
    temporary_emptied,
    temporary_full,
    versions_emptied,
)
from tests.chaos.on_machine import (
    SLEEPS_S,
    at_once,
    clock_set,
    no_loopback,
    not_alone_in_network,
    promoted_too_late,
    restored,
    suspended,
    taken_down,
    upgraded,
)
from tests.chaos.on_processes import (
    Strike,
    hung,
    killed,
    killed_while_hung,
    left_alone,
    no_memory_group,
    out_of_memory,
    rebooted,
    rebooted_slowly,
    rebooted_twice,
    second_controller,
    worker_hung,
    worker_hung_until_down,
    worker_killed,
)
from tests.chaos.seen import Outcome
from tests.chaos.site import FORK_SERVER, Disk
from tests.chaos.states import (
    CANARY,
    IDLE,
    LEAVING,
    PAUSED,
    PROMOTING,
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

HANGS_S = 8.0  # twice `down_after`
_BACK = frozenset[Outcome]({"rolled_back"})
_ONE_WORKER = {"KANARIA_WORKERS": "1"}  # with two workers, the other one would answer all requests


class Hurts(enum.Enum):
    """What cannot serve because of a fault."""

    NOBODY = "nothing that serves"
    GATEWAY = "the gateway"
    GATEWAY_AND_KEEPER = "the gateway and the keeper that restarts it"
    VERSION = "a version"
    VERSIONS = "both versions"
    EVERYBODY = "everything"  # until a person restarts the stack


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """A row of the table."""

    name: str
    does: str  # for the page
    strike: Strike  # the fault happens on entry and is undone on exit
    states: tuple[State, ...]  # the most important first: a run that is cut short has these
    lasts_s: float = 0.0
    hurts: Hurts = Hurts.NOBODY
    blinds_s: float = 0.0  # how long the controller cannot decide anything
    ends: frozenset[Outcome] = frozenset()  # allowed outcomes of a healthy release; empty: as without the fault
    is_of_canary: bool = False
    aborts: bool = False  # it aborts a release that is in its steps
    forgets: bool = False  # the ledger lacks the decisions made between the fault and its end
    may_fail: frozenset[str] = frozenset()  # commands that are allowed to fail
    environment: Mapping[str, str] = field(default_factory=dict)
    disk: Disk | None = None  # the state folder has its own file system
    has_own_temporary: bool = False  # temporary files have their own small file system
    why_not_here: Callable[[], str] = lambda: ""  # why this machine cannot produce the fault; empty: it can


_MOVED_CLOCK = {
    "KANARIA_METRICS": "scrape",  # Prometheus would keep the real time
    "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).with_name("clock")), os.environ.get("PYTHONPATH")))),
}

FAULTS = (
    Fault(
        "controller killed",
        "kill -9 of the controller",
        killed("controller"),
        (STEP_50_BAD, STEP_50, LEAVING, WATCHING_BAD, WATCHING, SHADOW, STARTING, STEP_10, PROMOTING, PAUSED),
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
        blinds_s=10.0,  # no version can take the traffic back until stable has loaded again
    ),
    Fault(
        "replica of stable killed",
        "kill -9 of one of stable's two processes and all its children (`KANARIA_REPLICAS=2`)",
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
        "kill -9 of one worker of stable; the process that holds the port survives",
        worker_killed(STABLE),
        (STEP_50, IDLE, SHADOW),
        hurts=Hurts.VERSION,
    ),
    Fault(
        "worker of the canary killed",
        "the same for the canary, which has only one worker",
        worker_killed(CANARY),
        (STEP_50, WATCHING, SHADOW),
        hurts=Hurts.VERSION,  # it is replaced at once, and one that ends is no proof against a version
        environment=_ONE_WORKER,
    ),
    Fault(
        "worker of stable hangs",
        f"SIGSTOP of one worker of stable for {HANGS_S:g} s",
        worker_hung(STABLE),
        (STEP_50, SHADOW),
        lasts_s=HANGS_S,
        hurts=Hurts.VERSION,
    ),
    Fault(
        "worker of the canary hangs",
        "the same for the canary, which has only one worker",
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
        "the same, but permanently: `down` has to stop it",
        worker_hung_until_down,
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
        "kill -9 of the keeper, as when memory runs out",
        killed(KEEPER),
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
        (STEP_50_BAD, STEP_50, WATCHING, LEAVING, WATCHING_BAD, SHADOW, STARTING, IDLE, PROMOTING, PAUSED),
        lasts_s=1.0,
        hurts=Hurts.EVERYBODY,
    ),
    Fault(
        "reboot, slow versions",
        "the same, and from then on a version takes 7 s longer to load, more than `down_after`",
        rebooted_slowly,
        (STEP_50, WATCHING),
        lasts_s=1.0,
        hurts=Hurts.EVERYBODY,
    ),
    Fault(
        "reboot, two `up`",
        "the same, with two `kanaria up` at the same time",
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
        (STEP_50, WATCHING_BAD, STARTING, WATCHING, SHADOW, LEAVING, PROMOTING, PAUSED),
        hurts=Hurts.EVERYBODY,
        aborts=True,
    ),
    Fault(
        "disk full",
        f"the state folder's disk is full for {HANGS_S:g} s",
        disk_full,
        (STEP_50_BAD, WATCHING_BAD, LEAVING, STEP_50, STARTING),
        lasts_s=HANGS_S,
        disk=Disk(96),
        why_not_here=no_mount,
    ),
    Fault(
        "disk full, controller killed",
        "the same, and kill -9 of the controller",
        disk_full_and_controller_killed,
        (STEP_50_BAD, WATCHING),
        lasts_s=HANGS_S,
        blinds_s=6.0,
        disk=Disk(96),
        why_not_here=no_mount,
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
        "the start of the ledger is overwritten, and kill -9 of the controller; a copy is put back after 6 s",
        ledger_damaged,
        (STEP_50, WATCHING, IDLE),
        lasts_s=6.0,
    ),
    Fault(
        "ledger deleted",
        "the ledger is deleted, and kill -9 of the controller; a copy is put back after 6 s",
        ledger_deleted,
        (STEP_50, IDLE),
        lasts_s=6.0,
    ),
    Fault(
        "routes cut, gateway killed",
        "the gateway's routes file is cut in half, and kill -9 of the gateway",
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
    Fault(
        "keeper hangs",
        f"SIGSTOP of the keeper for {HANGS_S:g} s",
        hung(KEEPER),
        (STEP_50_BAD, STARTING, PROMOTING),
        lasts_s=HANGS_S,
    ),
    Fault(
        "keeper hangs, stable killed",
        "the same, and kill -9 of all processes of the version that is stable before the release",
        killed_while_hung(STABLE, KEEPER),
        (STEP_50,),
        lasts_s=HANGS_S,
        hurts=Hurts.VERSION,
    ),
    Fault(
        "keeper and controller killed",
        "kill -9 of both at once; `kanaria up` 3 s later",
        left_alone,
        (STEP_50_BAD, PROMOTING, PAUSED, WATCHING, LEAVING),
        lasts_s=3.0,
        blinds_s=12.0,
    ),
    Fault(
        "keeper and gateway killed",
        "kill -9 of both at once",
        killed(KEEPER, "gateway"),
        (STEP_50, PROMOTING, STEP_50_BAD),
        hurts=Hurts.GATEWAY_AND_KEEPER,
        blinds_s=5.0,
    ),
    Fault(
        "gateway and controller killed",
        "kill -9 of both at once",
        killed("gateway", "controller"),
        (PROMOTING, STEP_50_BAD, PAUSED, LEAVING),
        hurts=Hurts.GATEWAY,
        blinds_s=5.0,
    ),
    Fault(
        "gateway hangs",
        "SIGSTOP of the gateway for 3 s",
        hung("gateway"),
        (PROMOTING, STEP_50_BAD, LEAVING),
        lasts_s=3.0,
        blinds_s=3.0,
    ),
    Fault(
        "both versions killed",
        "kill -9 of all processes of stable and of the canary",
        killed(STABLE, CANARY),
        (STEP_50, WATCHING, PROMOTING),
        hurts=Hurts.VERSIONS,
        ends=frozenset({"rolled_back", "running", "promoted"}),
        is_of_canary=True,
    ),
    Fault(
        "keeper and stable killed",
        "kill -9 of the keeper and of stable at once",
        killed(KEEPER, STABLE),
        (STEP_50, SHADOW),
        hurts=Hurts.VERSION,
        blinds_s=10.0,
    ),
    Fault(
        "fork server killed",
        "kill -9 of the process from which versions are forked",
        killed(FORK_SERVER),
        (STARTING, STEP_50),
    ),
    Fault(
        "fork server hangs, stable killed",
        f"SIGSTOP of that process for {HANGS_S:g} s, and kill -9 of stable",
        killed_while_hung(STABLE, FORK_SERVER),
        (STEP_50, STARTING),
        lasts_s=HANGS_S,
        hurts=Hurts.VERSION,
    ),
    Fault(
        "Prometheus and controller killed",
        "kill -9 of both at once",
        killed("prometheus", "controller"),
        (STEP_50_BAD, PROMOTING, WATCHING_BAD),
        blinds_s=5.0,
    ),
    Fault(
        "Prometheus and Alertmanager killed",
        "kill -9 of both at once",
        killed("prometheus", "alertmanager"),
        (WATCHING_BAD, STEP_50),
    ),
    Fault(
        "Prometheus' data deleted",
        "its stored data is deleted, and kill -9 of Prometheus",
        metrics_deleted,
        (STEP_50_BAD, STEP_50, WATCHING),
    ),
    Fault(
        "Prometheus' data damaged",
        "parts of its write-ahead log are overwritten, and kill -9 of Prometheus",
        metrics_damaged,
        (STEP_50_BAD, STEP_50, WATCHING),
    ),
    Fault(
        "machine sleeps",
        f"SIGSTOP of everything for 3 s, during which the wall clock advances {SLEEPS_S / 60:g} minutes",
        suspended,
        (STEP_50, STEP_50_BAD, WATCHING, STARTING, PAUSED, SHADOW, LEAVING),
        lasts_s=3.0,
        blinds_s=3.0,
        hurts=Hurts.EVERYBODY,
        environment=_MOVED_CLOCK,
    ),
    Fault(
        "canary out of memory",
        "the kernel kills each process of the canary that allocates another page",
        out_of_memory,
        (STEP_50, WATCHING, STARTING),
        lasts_s=HANGS_S,
        hurts=Hurts.VERSION,
        ends=_BACK,
        is_of_canary=True,
        why_not_here=no_memory_group,
    ),
    Fault(
        "no inodes",
        f"no file can be created in the state folder for {HANGS_S:g} s",
        no_inodes,
        (STEP_50_BAD, STARTING, PROMOTING, LEAVING, STEP_50),
        lasts_s=HANGS_S,
        disk=Disk(256, inodes=1000),
        why_not_here=no_mount,
    ),
    Fault(
        "disk hangs",
        f"all writes to the state folder block for {HANGS_S:g} s",
        disk_hangs,
        (STEP_50_BAD, PROMOTING, STARTING, LEAVING),
        lasts_s=HANGS_S,
        blinds_s=HANGS_S,
        disk=Disk(256, is_image=True),
        why_not_here=no_image,
    ),
    Fault(
        "disk read-only",
        f"the kernel refuses writes to the state folder; after {HANGS_S:g} s it is repaired, then `kanaria up`",
        disk_read_only,
        (STEP_50_BAD, STEP_50, PROMOTING, WATCHING_BAD),
        lasts_s=HANGS_S,
        hurts=Hurts.EVERYBODY,
        disk=Disk(256, is_image=True),
        why_not_here=no_image,
    ),
    Fault(
        "temporary files full",
        f"the disk for temporary files is full for {HANGS_S:g} s",
        temporary_full,
        (STARTING, STEP_50_BAD),
        lasts_s=HANGS_S,
        has_own_temporary=True,
        why_not_here=no_mount,
    ),
    Fault(
        "temporary files removed",
        "all temporary files are removed, with the gateway's sockets (the state folder's path is too long for sockets)",
        temporary_emptied,
        (STEP_50_BAD, STEP_50, IDLE),
        has_own_temporary=True,
        why_not_here=no_mount,
    ),
    Fault(
        "state folder moved",
        "it is renamed, and gets its name back 6 s later",
        state_moved,
        (STEP_50_BAD, STEP_50, IDLE),
        lasts_s=6.0,
        blinds_s=6.0,
    ),
    Fault(
        "upgrade",
        "`kanaria upgrade`",
        upgraded,
        (STEP_50_BAD, PROMOTING, STARTING, PAUSED, WATCHING_BAD, LEAVING),
        blinds_s=8.0,
    ),
    Fault(
        "ledger restored",
        "a copy of the ledger is made; 2 s later `kanaria down`, `kanaria ledger restore`, `kanaria up`",
        restored,
        (STEP_50, WATCHING, PAUSED),
        lasts_s=2.0,
        hurts=Hurts.EVERYBODY,
        aborts=True,
        forgets=True,
    ),
    Fault(
        "promote and abort at once",
        "two people run the two commands at the same time",
        at_once("promote", "abort"),
        (STEP_50, PAUSED),
        ends=frozenset({"promoted", "aborted", "rolled_back"}),
        may_fail=frozenset({"promote", "abort"}),
    ),
    Fault(
        "two upgrades at once",
        "two people run `kanaria upgrade` and a third `kanaria up`, all at the same time",
        at_once("upgrade", "upgrade", "up"),
        (STEP_50,),
    ),
    Fault(
        "loopback down",
        "the network device that connects all processes is down for 1 s",
        no_loopback,
        (STEP_50, STEP_50_BAD, PROMOTING, WATCHING, STARTING),
        lasts_s=1.0,
        blinds_s=3.0,
        hurts=Hurts.EVERYBODY,
        why_not_here=not_alone_in_network,
    ),
)
