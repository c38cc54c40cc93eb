"""One real stack for one combination. It is always removed afterwards."""

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
    is_image: bool = False  # ext4 in a file, which can be frozen and damaged; otherwise in memory


class Interrupted(Exception):
    """The driver was asked to stop."""


class NotReached(Exception):
    """The stack did not reach the state in which the fault was to happen."""


class Site:
    """A stack with its own state folder, and users.

    Args:
        folder: for all of its files; created here, and removed afterwards.
        store: the BentoML home with both versions.
        stopping: set when the driver has to stop; every wait then raises Interrupted.
        environment: additional variables for `kanaria up`.
        disk: a separate file system for the state folder; None: a plain folder.
        has_own_temporary: whether temporary files have their own small file system. The state folder's path is then
            too long for the gateway's sockets, so they are among the temporary files.
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
        self.commands: dict[str, int] = {}  # exit codes by label
        self.problems: list[str] = []
        self._samples = next(store.glob("models/digits/v1/samples.jsonl"))
        self._deployment = Deployment()

    # ---- life

    @contextmanager
    def open(self) -> Iterator[None]:
        """Create the folder; at the end of the block everything that was started in it is stopped."""
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
        """The arguments of `mount`."""
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
        """Check the state folder's disk, which no process uses, and mount it again."""
        subprocess.run(["umount", str(self.home)], check=True)
        repaired = self._image.with_name("repaired.img")  # the kernel may still cache the old image
        shutil.copy(self._image, repaired)
        subprocess.run(["e2fsck", "-fy", str(repaired)], check=False, capture_output=True)
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", str(repaired), str(self.home)], check=True)

    def users(self) -> Users:
        """Users who send requests while a `with` block runs."""
        return Users(
            gateway=self.kanaria.gateway,
            api_key=(self.home / API_KEY_FILE).read_text().strip(),
            samples=self._samples,
            admin=GatewaySettings(self.home / "gateway").admin_socket,
            notes=self.folder / "users.jsonl",
        )

    # ---- what people do

    def command(self, *arguments: str, label: str | None = None) -> int:
        """Run a `kanaria` command, and store its exit code under `label`, by default the command itself."""
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
        """Switch the canary to fail permanently."""
        (self.switches / FAILS).write_text(CANARY)

    def let_versions_load_slowly(self, seconds: float) -> None:
        """Make versions that start from now on load slowly."""
        (self.switches / LOADS_SLOWLY).write_text(str(seconds))

    # ---- what can be read

    def events(self) -> list[Event]:
        """All events in the ledger except ticks. Raises KanariaError."""
        ledger = Ledger(self.home / "ledger.db", read_only=True)
        try:
            return list(ledger.events(without_ticks=True))
        finally:
            ledger.close()

    def count_ticks(self) -> int:
        """The number of ticks and decisions in the ledger; 0 while it cannot be read. Notes are not counted."""
        with suppress(KanariaError):
            ledger = Ledger(self.home / "ledger.db", read_only=True)
            try:
                return sum(event.kind not in ("noted", "applied") for event in ledger.events())
            finally:
                ledger.close()
        return 0

    @property
    def deployment(self) -> Deployment:
        """The state by the ledger, as last read."""
        with suppress(KanariaError):
            self._deployment = fold(self.events())
        return self._deployment

    def pid(self, program: str) -> int:
        """The main process of `controller`, `gateway`, `prometheus`, `alertmanager` or of a version's tag."""
        return self.kanaria.pid(process_name(program))

    def tree(self, program: str) -> list[psutil.Process]:
        """A program's main process and all its child processes, children first.

        Of the keeper and the fork server only the main process: their children are the other programs.
        """
        if program == KEEPER:
            return [self.keeper()]
        if program == FORK_SERVER:
            return [self._fork_server()]
        main = psutil.Process(self.pid(program))
        return [*main.children(recursive=True), main]

    def worker(self, tag: str) -> psutil.Process:
        """One of a version's workers."""
        found = [one for one in self.tree(tag)[:-1] if is_worker(one.cmdline())]
        if not found:
            raise NotReached(f"{tag} has no worker")
        return found[0]

    def keeper(self) -> psutil.Process:
        """The keeper's process."""
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
        """Wait until `holds()`; returns False if it does not hold within `limit_s`. Raises Interrupted."""
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
    """Every process except this one that has the state folder in its environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_dead = process.status() == psutil.STATUS_ZOMBIE
            if process.pid != os.getpid() and not is_dead and process.environ().get("KANARIA_HOME") == str(home):
                found.append(process)
    return found


def end_all(home: Path) -> None:
    """Kill every process of a state folder. Each is stopped first, so that none starts another process meanwhile."""
    while found := processes_of(home):
        for process in found:
            with suppress(psutil.Error):
                process.suspend()
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1.0)


def named(process: psutil.Process) -> str:
    """A short description of a process."""
    with suppress(psutil.Error):
        return json.dumps(" ".join(process.cmdline())[:80])
    return str(process.pid)
