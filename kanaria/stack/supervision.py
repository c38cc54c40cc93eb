"""The local processes: which there should be, what is known of each, and how all of them are ended.

What should run is a file for each program; the keeper (see `keeper`) makes it so. All that is known lies in files: it
can be read while no keeper runs. Nothing here knows what the processes are.
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
_RESTART_WAIT_S = 3.0  # whoever is started again because it hangs has had its time
_KEEPER_ENDS_S = 2.0  # it has nothing to finish
_TAKE_OVER_S, _TAKE_OVER_TRIES = 2.0, 5
_FIRST = 0


@dataclass(frozen=True, slots=True)
class Program:
    """One process to keep."""

    name: str  # also of its files
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  # besides the keeper's own; may be secret
    folder: str = field(default_factory=os.getcwd)  # where it runs
    stop_wait_s: float = 30.0  # time to finish its work after SIGTERM
    stop_order: int = 50  # when all are stopped: lower goes first, equal ones together
    droppable: Sequence[str] = ()  # files that it appends to for another; emptied once they are as large as a log
    listed: Sequence[str] | None = None  # which of the keeper's variables it gets, see `inherited`; None: all
    is_confined: bool = False  # it and what it starts can gain no rights, as by sudo
    sandbox: Sandbox | None = None  # what it does not reach; None: nothing is kept from it


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What is known of one program."""

    pid: int  # 0: none now
    is_alive: bool  # or it was never started yet and will be in a moment
    is_stopping: bool
    has_crashed: bool  # ended by itself at least once since it was added
    exits: int  # how often it did so, as far as the keeper has seen
    signal: int  # that killed it when it ended last; 0: it ended in another way, or nobody knows
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
    """The files of one state folder: what should run, and what does.

    A file that cannot be read counts as none; but where only a file to open is missing, OSError is raised: the file is
    there, and nobody must act as if it was not.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._programs, self._states = Notes(home / "programs"), Notes(home / "processes")
        self._known_names, self._known_programs = KnownFiles(_listed), KnownFiles(_program_in)
        self._known_states = KnownFiles(state_in)

    @property
    def wanted_in(self) -> Path:
        """The folder in which each change of what should run is one."""
        return self._programs.folder

    def names(self) -> tuple[str, ...]:
        """Every program that should run; none where there is no such folder. Raises OSError where nobody knows."""
        listed = self.listed()
        return names_in(self._programs.folder) if listed is None else listed

    def listed(self) -> tuple[str, ...] | None:
        """Every program that should run. None where nobody knows: the folder was moved away, or cannot be read."""
        return self._known_names.at(self._programs.folder)

    def program(self, name: str) -> Program | None:
        return self._known_programs.at(self._programs[name])

    def is_wanted(self, name: str) -> bool:
        """Whether it should run, be its file readable or not."""
        return self._programs[name].exists()

    def write_program(self, program: Program) -> None:
        """Raises OSError."""
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
        """What is known of each program that was started and has not been stopped to the end."""
        return {name: state for name in names_in(self._states.folder) if (state := self.state(name))}

    def state(self, name: str) -> ProcessState | None:
        return self._known_states.at(self._states[name])

    def write_state(self, name: str, state: ProcessState) -> None:
        """Raises OSError."""
        self._states.folder.mkdir(exist_ok=True)  # and not the state folder itself: it may come back
        write_whole(self._states[name], state.model_dump_json())

    def drop_state(self, name: str) -> None:
        self._states[name].unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget every program and process."""
        for notes in (self._programs, self._states):
            for path in notes.folder.glob("*.json"):
                path.unlink(missing_ok=True)


def keepers_of(home: Path) -> list[psutil.Process]:
    """The living keepers of a state folder, but this process; also those that wait. Raises OSError."""
    found = []
    for process in marked(home).get(KEEPER, ()):
        with suppress(psutil.Error):
            if KEEPER_MODULE in process.cmdline():  # and no fork server
                found.append(process)
    return found


def names_in(folder: Path) -> tuple[str, ...]:
    """The names of the notes in a folder, sorted; none where there is no such folder. Raises OSError: nobody knows."""
    try:
        found = os.listdir(folder)  # noqa: PTH208 - `glob` takes its failures for an empty folder
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
    """What may be asked of the processes of one state folder; the keeper need not run for it."""

    def __init__(self, home: Path, logs: Path) -> None:
        self._home, self._logs = home, logs
        self._files = ProcessFiles(home)
        self._lock = home / locks.KEEPER_LOCK

    @property
    def is_running(self) -> bool:
        """Whether a keeper, or a command in its place, takes care of the processes. Raises OSError: nobody knows."""
        return locks.holder(self._lock) is not None

    @property
    def is_away(self) -> bool:
        """Whether the folder of what should run is not there: the state folder was moved, or its disk is unmounted."""
        return not self._files.wanted_in.is_dir()

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start a keeper, which takes over what still runs and stays when this process ends. Raises StackError.

        Args:
            environment: what it and all that it starts have besides their own; None: this process's.
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
        """The variables that the keeper was started with; this process's own where they cannot be read."""
        keeper = locks.holder(self._lock)
        for process in keeper.identity.processes if keeper else ():
            with suppress(psutil.Error, OSError):
                return process.environ()
        return dict(os.environ)

    def add(self, program: Program) -> None:
        """Let `program` run and be started again whenever it ends. Does nothing when it is kept already.

        Raises OSError.
        """
        if not self._files.program(program.name):
            self._files.write_program(program)

    def replace(self, program: Program) -> None:
        """Let `program` run from its next start on. Raises OSError."""
        self._files.write_program(program)

    def program(self, name: str) -> Program | None:
        """What is kept under this name; None when there is nothing that can be read. Raises OSError: nobody knows."""
        return self._files.program(name)

    def info(self, name: str) -> ProcessInfo | None:
        """What is known of `name`; None when it is not kept. Raises OSError where nobody knows whether it lives."""
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
        """Ask `name` to end; it is forgotten once it has: `info` gives None."""
        self._files.drop_program(name)

    def names(self) -> tuple[str, ...]:
        """Every program that is kept. Raises OSError where nobody knows."""
        return self._files.names()

    def alive(self) -> dict[str, list[psutil.Process]]:
        """The living processes of this state folder by program, whether somebody takes care of them or not.

        Raises OSError where nobody knows.
        """
        by_mark, states = marked(self._home), self._files.states()
        names = sorted({*states, *by_mark} - {KEEPER})
        found = {name: self._belongings(name, states.get(name), by_mark) for name in names}
        return {name: processes for name, processes in found.items() if processes}

    @contextmanager
    def taken_over(self, *, doing: str) -> Iterator[None]:
        """End the keeper and take its place while the block runs: nothing is started. Raises StackError."""
        with ExitStack() as held:
            for tries_left in reversed(range(_TAKE_OVER_TRIES)):  # another keeper may come in between
                self._end_keeper()
                try:
                    held.enter_context(locks.locked(self._lock, doing=doing, wait_s=_TAKE_OVER_S))
                    break
                except StackError:
                    if not tries_left:
                        raise
            yield

    def _end_keeper(self) -> None:
        """Also one whose lock another folder has, which was in the place of this one."""
        keeper = locks.holder(self._lock)
        named = keeper.identity if keeper is not None and keeper.doing == KEEPER else None
        if named is not None or keepers_of(self._home):
            end(lambda: [*(named.processes if named else ()), *keepers_of(self._home)], wait_s=_KEEPER_ENDS_S)

    def end(self, name: str) -> None:
        """End one program with all that belongs to it, in place of the keeper. Raises StackError when it stays."""
        self._end({name: self._files.state(name)})

    def restart(self, name: str) -> None:
        """End the main process of `name`, however it hangs; the keeper starts it again."""
        state = self._files.state(name)
        identity = state.identity if state is not None and self._files.is_wanted(name) else None
        if identity is not None:
            end(lambda: identity.processes, wait_s=_RESTART_WAIT_S)

    def suspend(self, name: str) -> bool:
        """SIGSTOP for every process of `name`: the keeper lets it be, and can still end it. False where none got it."""
        is_any = False
        for process in self._belongings(name, self._files.state(name), marked(self._home)):
            with suppress(psutil.Error):
                process.suspend()
                is_any = True
        return is_any

    def shutdown(self, *, doing: str = "kanaria down") -> None:
        """End every process of this state folder, the keeper too, and forget them.

        Raises StackError when one stays, or when all have ended and could not be forgotten.
        """
        with self.taken_over(doing=doing):
            states: dict[str, ProcessState | None] = dict(self._files.states())
            for name in self.alive():
                states.setdefault(name, None)
            ordered = sorted(states.items(), key=lambda item: item[1].stop_order if item[1] else _FIRST)
            for _, group in groupby(ordered, key=lambda item: item[1].stop_order if item[1] else _FIRST):
                self._end(dict(group))
            self._end(dict.fromkeys((*self.alive(), KEEPER)))  # what came meanwhile, and keepers that wait
            try:
                self._files.clear()
            except OSError as error:
                raise StackError(
                    "everything is stopped, but what should run could not be forgotten",
                    saw=str(error),
                    do="let the state folder be written again, then `kanaria down` once more: "
                    "it writes down, too, that a release was stopped",
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
            with suppress(OSError):  # a disk that can only be read: what is left there is about no living process
                self._files.drop_state(name)

    def _belongings(
        self, name: str, state: ProcessState | None, by_mark: Mapping[str, list[psutil.Process]]
    ) -> list[psutil.Process]:
        return belongings(state.identity if state else None, by_mark.get(name, ()))
