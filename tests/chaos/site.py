"""One real stack for one combination: started, struck, watched, and gone afterwards, whatever happens."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from contract.errors import KanariaError
from kanaria.settings import API_KEY_FILE, TOKEN_FILE
from kanaria.stack import fork_server
from kanaria.stack.bentos import process_name
from kanaria.stack.locks import holder
from kanaria.stack.supervision import KEEPER
from kanaria.stack.workers import is_worker
from rollout.ledger.events import Event
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Deployment, fold
from rollout.routers.envoy.settings import GatewaySettings
from rollout.spec import RolloutSpec
from rollout.ui.client import ControllerClient
from tests.chaos.model import FAILS, LOADS_SLOWLY, SWITCHES
from tests.chaos.states import CANARY, PERSON
from tests.chaos.users import Users
from tests.support.paths import ROOT
from tests.support.stack import Kanaria

COMMAND_LIMIT_S = 90.0
DID_NOT_END = 124
_POLL_S = 0.2


FORK_SERVER = "fork server"


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system for one state folder."""

    mb: int
    inodes: int | None = None
    is_image: bool = False  # ext4 in a file, which can be frozen and break; else it lies in memory


class Interrupted(Exception):
    """Somebody wants the driver to stop."""


class NotReached(Exception):
    """The stack did not come to where the fault was to strike."""


class Site:
    """A stack with a state folder of its own, and users.

    Args:
        folder: for all of its files; made here, and gone afterwards.
        store: the BentoML home with both versions.
        stopping: set when the driver has to stop: every wait ends then with Interrupted.
        environment: more variables for `kanaria up`.
        disk: a file system of its own for the state folder; None: a plain folder.
        has_own_temporary: whether temporary files lie in a small file system, and the state folder's path is too long
            for the gateway's sockets, which then lie there, too.
    """

    def __init__(
        self,
        folder: Path,
        store: Path,
        stopping: threading.Event,
        *,
        environment: Mapping[str, str],
        disk: Disk | None = None,
        has_own_temporary: bool = False,
    ) -> None:
        self.folder, self._stopping, self._disk = folder, stopping, disk
        self._has_own_temporary, self.temporary = has_own_temporary, folder / "temporary"
        self.switches = folder / "switches"
        fixed = {
            SWITCHES: str(self.switches),
            "KANARIA_PASS_ENV": f"{SWITCHES},CHAOS_CLOCK",
            "KANARIA_DRIFT_EVERY_S": "0",
            "KANARIA_WORKERS": "2",
        }
        if has_own_temporary:
            fixed["TMPDIR"] = str(self.temporary)
        place = folder / ("long" * 20) if has_own_temporary else folder
        self.kanaria = Kanaria.at(place, store, **fixed | dict(environment))
        self.home = self.kanaria.home
        self.commands: dict[str, int] = {}  # those that were run, with their exit codes
        self.problems: list[str] = []
        self._samples = next(store.glob("models/digits/v1/samples.jsonl"))
        self._deployment = Deployment()

    # ---- life

    @contextmanager
    def open(self) -> Iterator[None]:
        """Make the folder; at the end of the block everything that was started in it is gone."""
        self.switches.mkdir(parents=True)
        self.home.mkdir()
        with ExitStack() as mounted:
            mounted.callback(shutil.rmtree, self.folder, ignore_errors=True)
            if self._has_own_temporary:
                self.temporary.mkdir()
                mounted.enter_context(_mounted(self.temporary, "-t", "tmpfs", "-o", "size=4m", "tmpfs"))
            if self._disk is not None:
                mounted.enter_context(_mounted(self.home, *self._source(self._disk)))
            mounted.callback(end_all, self.home)
            yield

    def _source(self, disk: Disk) -> list[str]:
        """What is mounted, as `mount` wants it."""
        if not disk.is_image:
            inodes = f",nr_inodes={disk.inodes}" if disk.inodes else ""
            return ["-t", "tmpfs", "-o", f"size={disk.mb}m{inodes}", "tmpfs"]
        with self._image.open("wb") as image:
            image.truncate(disk.mb << 20)
        subprocess.run(["mkfs.ext4", "-q", str(self._image)], check=True)
        return ["-o", "loop,errors=remount-ro", str(self._image)]

    @property
    def _image(self) -> Path:
        return self.folder / "disk.img"

    def repair(self) -> None:
        """Check the state folder's disk, which nothing uses, and mount it anew."""
        subprocess.run(["umount", str(self.home)], check=True)
        repaired = self._image.with_name("repaired.img")  # the kernel may still know the other one as it was
        shutil.copy(self._image, repaired)
        subprocess.run(["e2fsck", "-fy", str(repaired)], check=False, capture_output=True)
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", str(repaired), str(self.home)], check=True)

    def users(self) -> Users:
        """Users who begin with a `with` block."""
        return Users(
            gateway=self.kanaria.gateway,
            api_key=(self.home / API_KEY_FILE).read_text().strip(),
            samples=self._samples,
            admin=GatewaySettings(self.home / "gateway").admin_socket,
            notes=self.folder / "users.jsonl",
        )

    # ---- what a person does

    def command(self, *arguments: str, label: str | None = None) -> int:
        """Run a command of `kanaria`, and remember its exit code under `label`, or under its own words."""
        try:
            done = subprocess.run(
                [sys.executable, "-m", "kanaria", *arguments],
                env={**os.environ, **self.kanaria.environment},
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
                timeout=COMMAND_LIMIT_S,
            )
            code, output = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired as error:
            code, output = DID_NOT_END, str(error.stdout or "")
        self.commands[label or " ".join(arguments)] = code
        with (self.folder / "commands.log").open("a") as log:
            log.write(f"{time.time():.2f} kanaria {' '.join(arguments)} -> {code}\n{output}\n")
        return code

    def client(self) -> ControllerClient:
        """The controller's API, as the commands use it."""
        token = (self.home / TOKEN_FILE).read_text().strip()
        return ControllerClient(self.kanaria.controller, token=token, by=PERSON)

    def release(self, plan: Mapping[str, object]) -> None:
        """Start a release of the canary. Raises RolloutError."""
        self.client().release(CANARY, RolloutSpec.model_validate(plan))

    def let_the_canary_fail(self) -> None:
        """From now on, for good."""
        (self.switches / FAILS).write_text(CANARY)

    def let_versions_load_slowly(self, seconds: float) -> None:
        """Those that start from now on."""
        (self.switches / LOADS_SLOWLY).write_text(str(seconds))

    # ---- what there is

    def events(self) -> list[Event]:
        """All that the ledger holds, without ticks. Raises KanariaError."""
        ledger = Ledger(self.home / "ledger.db", read_only=True)
        try:
            return list(ledger.events(without_ticks=True))
        finally:
            ledger.close()

    def count_ticks(self) -> int:
        """How many ticks and decisions the ledger holds; 0 while it cannot be read. Notes are no progress."""
        with suppress(KanariaError):
            ledger = Ledger(self.home / "ledger.db", read_only=True)
            try:
                return sum(event.kind not in ("noted", "applied") for event in ledger.events())
            finally:
                ledger.close()
        return 0

    @property
    def deployment(self) -> Deployment:
        """The state of the ledger; the last one that could be read."""
        with suppress(KanariaError):
            self._deployment = fold(self.events())
        return self._deployment

    def pid(self, program: str) -> int:
        """The main process of `controller`, `gateway`, `prometheus`, `alertmanager` or of a version's tag."""
        return self.kanaria.pid(process_name(program))

    def tree(self, program: str) -> list[psutil.Process]:
        """A program's main process and all below it; the children come first.

        The keeper and the fork server are alone: their children are the other programs.
        """
        if program == KEEPER:
            return [self.keeper()]
        if program == FORK_SERVER:
            return [self._fork_server()]
        main = psutil.Process(self.pid(program))
        return [*main.children(recursive=True), main]

    def worker(self, tag: str) -> psutil.Process:
        """One of the processes of a version that answer requests."""
        found = [one for one in self.tree(tag)[:-1] if is_worker(one.cmdline())]
        if not found:
            raise NotReached(f"{tag} has no worker")
        return found[0]

    def keeper(self) -> psutil.Process:
        """The process that keeps all others."""
        found = holder(self.home / "keeper.lock")
        if found is None:
            raise NotReached("there is no keeper")
        return psutil.Process(found.pid)

    def _fork_server(self) -> psutil.Process:
        for process in self.keeper().children():
            if fork_server.MODULE in process.cmdline():
                return process
        raise NotReached("there is no fork server")

    def everything(self) -> list[psutil.Process]:
        """Every process of this stack."""
        return processes_of(self.home)

    # ---- time

    def wait(self, seconds: float) -> None:
        """Raises Interrupted."""
        if self._stopping.wait(seconds):
            raise Interrupted

    def until(self, holds: Callable[[], object], *, limit_s: float) -> bool:
        """Wait until `holds()`; False when it did not within `limit_s`. Raises Interrupted."""
        deadline = time.monotonic() + limit_s
        while not holds():
            if time.monotonic() > deadline:
                return False
            self.wait(_POLL_S)
        return True


@contextmanager
def _mounted(folder: Path, *source: str) -> Iterator[None]:
    subprocess.run(["mount", *source, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process, except this one, with that state folder in its environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_dead = process.status() == psutil.STATUS_ZOMBIE
            if process.pid != os.getpid() and not is_dead and process.environ().get("KANARIA_HOME") == str(home):
                found.append(process)
    return found


def end_all(home: Path) -> None:
    """Kill every process of a state folder; stopped first, so that none starts another meanwhile."""
    while found := processes_of(home):
        for process in found:
            with suppress(psutil.Error):
                process.suspend()
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1.0)


def named(process: psutil.Process) -> str:
    """A process, in few words."""
    with suppress(psutil.Error):
        return json.dumps(" ".join(process.cmdline())[:80])
    return str(process.pid)
