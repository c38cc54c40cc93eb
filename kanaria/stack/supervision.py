"""The local processes: which programs should run, the state of each, and how all of them are stopped.

Each program that should run has a file; the keeper (see `keeper`) starts and restarts it. The state is in files too,
so it can be read while no keeper runs. This module does not know what the programs do.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from contract.files import write_whole
from contract.known_files import KnownFiles, Notes
from kanaria.errors import StackError
from kanaria.private_files import PERSONAL_TOKEN
from kanaria.stack import locks
from kanaria.stack.process_state import ProcessState, state_in
from kanaria.stack.processes import belongings, end, marked, marks
from kanaria.stack.python import own_module
from kanaria.stack.sandbox import Sandbox
from kanaria.stack.shortage import text_of

KEEPER, KEEPER_MODULE = "keeper", "kanaria.stack.keeper"
_START_TIMEOUT_S = 20.0
_RESTART_WAIT_S = 3.0  # SIGTERM to SIGKILL of a program that is restarted because it hangs
_KEEPER_ENDS_S = 2.0  # SIGTERM to SIGKILL of the keeper, which has nothing to finish
_TAKE_OVER_S, _TAKE_OVER_TRIES = 2.0, 5
_FIRST = 0


@dataclass(frozen=True, slots=True)
class Program:
    """One process to keep."""

    name: str  # names its files too
    command: Sequence[str]
    # In addition to the keeper's own variables; may be secret.
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    folder: str = field(default_factory=os.getcwd)  # working directory
    stop_wait_s: float = 30.0  # from SIGTERM to SIGKILL, to finish its work
    stop_order: int = 50  # lower stops first, equal ones together
    droppable: Sequence[str] = ()  # files that it appends to for another program; emptied at the size limit of a log
    listed: Sequence[str] | None = None  # patterns of the keeper's variables it gets, see `inherited`; None: all
    is_confined: bool = False  # it and its children cannot gain rights, for example by sudo
    sandbox: Sandbox | None = None  # what it cannot reach; None: no sandbox


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """The state of one program."""

    pid: int  # 0: no process now
    is_alive: bool  # True too for a program that is about to be started for the first time
    is_stopping: bool
    has_crashed: bool  # ended by itself at least once since it was added
    exits: int  # how often, as far as the keeper has seen
    signal: int  # that killed it at its last end; 0: it ended in another way, or the cause is unknown
    log: Path


class _StoredProgram(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    command: tuple[str, ...]
    environment: dict[str, str] = {}
    folder: str
    stop_wait_s: float
    stop_order: int
    droppable: tuple[str, ...] = ()
    listed: tuple[str, ...] | None = None
    is_confined: bool = False
    sandbox: Sandbox | None = None


class ProcessFiles:
    """The files of one state folder: the wanted programs and the state of each.

    A file that cannot be read counts as missing. But if the process or machine is out of file descriptors or memory,
    OSError is raised: the file may exist, and callers must not act as if it did not.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._programs, self._states = Notes(home / "programs"), Notes(home / "processes")
        self._known_names, self._known_programs = KnownFiles(_listed), KnownFiles(_program_in)
        self._known_states = KnownFiles(state_in)

    @property
    def wanted_in(self) -> Path:
        """The folder of the wanted programs: it changes with each change of the list."""
        return self._programs.folder

    def names(self) -> tuple[str, ...]:
        """Every program that should run; empty if there is no such folder. Raises OSError if it cannot be read."""
        listed = self.listed()
        return names_in(self._programs.folder) if listed is None else listed

    def listed(self) -> tuple[str, ...] | None:
        """Every program that should run; None if it is unknown: the folder was moved away or cannot be read."""
        return self._known_names.at(self._programs.folder)

    def program(self, name: str) -> Program | None:
        return self._known_programs.at(self._programs[name])

    def is_wanted(self, name: str) -> bool:
        """Whether it should run, even if its file cannot be read."""
        return self._programs[name].exists()

    def write_program(self, program: Program) -> None:
        """Write the file of a program. Raises OSError."""
        self._programs.folder.mkdir(exist_ok=True)
        stored = _StoredProgram(
            command=tuple(map(str, program.command)),
            environment=dict(program.environment),
            folder=program.folder,
            stop_wait_s=program.stop_wait_s,
            stop_order=program.stop_order,
            droppable=tuple(program.droppable),
            listed=None if program.listed is None else tuple(program.listed),
            is_confined=program.is_confined,
            sandbox=program.sandbox,
        )
        write_whole(self._programs[program.name], stored.model_dump_json(indent=1), mode=0o600)

    def drop_program(self, name: str) -> None:
        self._programs[name].unlink(missing_ok=True)

    def states(self) -> dict[str, ProcessState]:
        """The state of each program that was started and is not completely stopped."""
        return {name: state for name in names_in(self._states.folder) if (state := self.state(name))}

    def state(self, name: str) -> ProcessState | None:
        return self._known_states.at(self._states[name])

    def write_state(self, name: str, state: ProcessState) -> None:
        """Write the file with the state of a program. Raises OSError."""
        self._states.folder.mkdir(exist_ok=True)  # never creates the state folder itself: it may be moved back
        write_whole(self._states[name], state.model_dump_json())

    def drop_state(self, name: str) -> None:
        self._states[name].unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the files of all programs and states."""
        for notes in (self._programs, self._states):
            for path in notes.folder.glob("*.json"):
                path.unlink(missing_ok=True)


def keepers_of(home: Path) -> list[psutil.Process]:
    """The living keepers of a state folder except this process, with those that wait for the lock. Raises OSError."""
    found = []
    for process in marked(home).get(KEEPER, ()):
        with suppress(psutil.Error):
            if KEEPER_MODULE in process.cmdline():  # not a fork server, which carries the same mark
                found.append(process)
    return found


def names_in(folder: Path) -> tuple[str, ...]:
    """The sorted names of the notes in a folder; empty if there is no such folder. Raises OSError if unreadable."""
    try:
        found = os.listdir(folder)  # noqa: PTH208 - `glob` treats a failure as an empty folder
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(sorted(name.removesuffix(".json") for name in found if name[0] != "." and name.endswith(".json")))


def _listed(folder: Path) -> tuple[str, ...] | None:
    with suppress(OSError):
        return names_in(folder) if folder.is_dir() else None
    return None


def _program_in(path: Path) -> Program | None:
    try:
        stored = _StoredProgram.model_validate_json(text_of(path) or b"")
    except ValidationError:
        return None
    return Program(name=path.stem, **dict(stored))


class Supervisor:
    """Controls the processes of one state folder. The keeper does not have to run for it."""

    def __init__(self, home: Path, logs: Path) -> None:
        self._home, self._logs = home, logs
        self._files = ProcessFiles(home)
        self._lock = home / locks.KEEPER_LOCK

    @property
    def is_running(self) -> bool:
        """Whether a keeper, or a command in its place, holds the lock. Raises OSError if it cannot be found out."""
        return locks.holder(self._lock) is not None

    @property
    def is_away(self) -> bool:
        """Whether the folder of wanted programs is missing: the state folder was moved, or its disk is unmounted."""
        return not self._files.wanted_in.is_dir()

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start a keeper. It takes over what still runs and outlives this process. Raises StackError.

        Args:
            environment: the base environment of the keeper and its programs; None: this process's.
        """
        if self.is_running:
            return
        self._logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        given = os.environ if environment is None else environment
        base = {name: value for name, value in given.items() if name != PERSONAL_TOKEN}
        command = own_module(KEEPER_MODULE, str(self._home), str(self._logs))
        try:
            done = subprocess.run(
                command,
                env={**base, **marks(self._home, KEEPER)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_START_TIMEOUT_S,
            )
            saw = "" if done.returncode == 0 else (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        except (OSError, subprocess.TimeoutExpired) as error:
            saw = f"{type(error).__name__}: no answer" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        if saw and not self.is_running:
            raise StackError("the keeper of the processes did not start", saw=saw, do=f"read {self._logs}/keeper.log")

    def environment(self) -> dict[str, str]:
        """The variables that the keeper was started with; this process's own if they cannot be read."""
        keeper = locks.holder(self._lock)
        for process in keeper.identity.processes if keeper else ():
            with suppress(psutil.Error, OSError):
                return process.environ()
        return dict(os.environ)

    def add(self, program: Program) -> None:
        """Let the keeper start `program`, and restart it whenever it ends. Does nothing if it is kept already.

        Raises OSError.
        """
        if not self._files.program(program.name):
            self._files.write_program(program)

    def replace(self, program: Program) -> None:
        """Use `program` from its next start on. Raises OSError."""
        self._files.write_program(program)

    def program(self, name: str) -> Program | None:
        """The wanted program of this name; None if there is none that can be read. Raises OSError if it is unknown."""
        return self._files.program(name)

    def info(self, name: str) -> ProcessInfo | None:
        """The state of `name`; None if it is not kept. Raises OSError if it is unknown whether it lives."""
        state, is_wanted = self._files.state(name), self._files.is_wanted(name)
        if state is None and not is_wanted:
            return None
        has_never_run = state is None or (state.pid == 0 and state.exits == 0)
        is_alive = state is not None and state.is_alive
        ended = state is not None and (state.exits > 0 or (state.pid > 0 and not is_alive))
        return ProcessInfo(
            pid=state.pid if state is not None and is_alive else 0,
            is_alive=is_alive or (is_wanted and has_never_run),
            is_stopping=not is_wanted,
            has_crashed=is_wanted and ended,
            exits=state.exits if state else 0,
            signal=max(0, -(state.exit_code or 0)) if state else 0,
            log=self._logs / f"{name}.log",
        )

    def stop(self, name: str) -> None:
        """Ask `name` to end. Once it has, `info` returns None."""
        self._files.drop_program(name)

    def names(self) -> tuple[str, ...]:
        """Every program that is kept. Raises OSError if it is unknown."""
        return self._files.names()

    def alive(self) -> dict[str, list[psutil.Process]]:
        """The living processes of this state folder by program, with or without a keeper.

        Raises OSError if they cannot be listed.
        """
        by_mark, states = marked(self._home), self._files.states()
        names = sorted({*states, *by_mark} - {KEEPER})
        found = {name: self._belongings(name, states.get(name), by_mark) for name in names}
        return {name: processes for name, processes in found.items() if processes}

    @contextmanager
    def taken_over(self, *, doing: str) -> Iterator[None]:
        """Stop the keeper and hold its lock while the block runs: nothing is started. Raises StackError."""
        with ExitStack() as held:
            for tries_left in reversed(range(_TAKE_OVER_TRIES)):  # another keeper may take the lock first
                self._end_keeper()
                try:
                    held.enter_context(locks.locked(self._lock, doing=doing, wait_s=_TAKE_OVER_S))
                    break
                except StackError:
                    if not tries_left:
                        raise
            yield

    def _end_keeper(self) -> None:
        """Stop every keeper, also one whose lock is in a folder that was at this path before."""
        keeper = locks.holder(self._lock)
        named = keeper.identity if keeper is not None and keeper.doing == KEEPER else None
        if named is not None or keepers_of(self._home):
            end(lambda: [*(named.processes if named else ()), *keepers_of(self._home)], wait_s=_KEEPER_ENDS_S)

    def end(self, name: str) -> None:
        """Stop one program with all its processes, in place of the keeper. Raises StackError if one does not end."""
        self._end({name: self._files.state(name)})

    def restart(self, name: str) -> None:
        """Stop the main process of `name`, with SIGKILL if it hangs. The keeper restarts it."""
        state = self._files.state(name)
        identity = state.identity if state is not None and self._files.is_wanted(name) else None
        if identity is not None:
            end(lambda: identity.processes, wait_s=_RESTART_WAIT_S)

    def suspend(self, name: str) -> bool:
        """Send SIGSTOP to every process of `name`; the keeper can still end them. False if none got the signal."""
        is_any = False
        for process in self._belongings(name, self._files.state(name), marked(self._home)):
            with suppress(psutil.Error):
                process.suspend()
                is_any = True
        return is_any

    def shutdown(self, *, doing: str = "kanaria down") -> None:
        """Stop every process of this state folder, with the keeper, and remove their files.

        Raises StackError if a process does not end, or if all ended and their files could not be removed.
        """
        with self.taken_over(doing=doing):
            states: dict[str, ProcessState | None] = dict(self._files.states())
            for name in self.alive():
                states.setdefault(name, None)
            ordered = sorted(states.items(), key=lambda item: item[1].stop_order if item[1] else _FIRST)
            for _, group in groupby(ordered, key=lambda item: item[1].stop_order if item[1] else _FIRST):
                self._end(dict(group))
            self._end(dict.fromkeys((*self.alive(), KEEPER)))  # processes started meanwhile, and waiting keepers
            try:
                self._files.clear()
            except OSError as error:
                raise StackError(
                    "everything is stopped, but the list of what should run could not be removed",
                    saw=str(error),
                    do="make the state folder writable, then run `kanaria down` again: "
                    "it also records that a running release was stopped",
                ) from error

    def _end(self, states: Mapping[str, ProcessState | None]) -> None:
        if not states:
            return

        def find() -> list[psutil.Process]:
            by_mark = marked(self._home)
            return [process for name, state in states.items() for process in self._belongings(name, state, by_mark)]

        wait_s = max(state.stop_wait_s if state else ProcessState().stop_wait_s for state in states.values())
        if not end(find, wait_s=wait_s):
            left = ", ".join(str(process.pid) for process in find())
            raise StackError("a process does not end", saw=f"{', '.join(states)}: pid {left}", do=f"kill -9 {left}")
        for name in states:
            with suppress(OSError):  # a read-only disk: the file that stays describes no living process
                self._files.drop_state(name)

    def _belongings(
        self, name: str, state: ProcessState | None, by_mark: Mapping[str, list[psutil.Process]]
    ) -> list[psutil.Process]:
        return belongings(state.identity if state else None, by_mark.get(name, ()))
