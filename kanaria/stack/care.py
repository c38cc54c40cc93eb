"""How a keeper takes care of programs: it starts what should run and what has ended, and ends what should not run."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import structlog

from kanaria.errors import StackError
from kanaria.stack import locks
from kanaria.stack.confinement import confinement, offered, say_withheld, variables_of
from kanaria.stack.folder_watch import FolderWatch
from kanaria.stack.forked_versions import ForkedVersions
from kanaria.stack.identity import Identity, boot
from kanaria.stack.log_files import LogFiles
from kanaria.stack.process_ends import ProcessEnds
from kanaria.stack.process_state import ProcessState
from kanaria.stack.processes import belongings, leader, marked, marks, send
from kanaria.stack.shortage import is_shortage
from kanaria.stack.supervision import KEEPER, ProcessFiles, Program

log = structlog.get_logger()

BEAT_S = 0.2
CALM_BEAT_S = 1.0  # while all runs, and whatever changes wakes the keeper: only a net
RETURNED_AFTER_S = 5.0  # a state folder's list stayed the same for so long: whoever brings it back is done with it
STARTED_AFTER_S = 1.0  # a process that lived for so long has started well, and is started again at once
LONGEST_WAIT_S = 20.0  # before another attempt
# Longest waits of a version for the fork server. One that has run before is missed: stable may be the only one.
FIRST_FORK_WAIT_S, NEXT_FORK_WAIT_S = 15.0, 3.0
LEFT_BEHIND_S = 5.0  # time for the workers of a process that ended by itself to end, too
# ValueError: a null byte. SubprocessError: it could not be confined.
_NOT_STARTED = (OSError, ValueError, StackError, subprocess.SubprocessError)


@dataclass
class _Care:
    """What this keeper remembers of one program; all that must survive it is in the state."""

    state: ProcessState
    child: subprocess.Popen[bytes] | None = None  # None: an earlier keeper started it, or it was forked
    is_unidentified: bool = False  # nobody could look when it started; it lives until somebody can
    is_hidden: bool = False  # because it is another user's, as a program that becomes root
    started_s: float = 0.0  # monotonic, like the other times
    due_s: float = 0.0  # of the next attempt to start
    failed_starts: int = 0
    waits_since_s: float | None = None  # for the fork server; None: it does not
    kill_at_s: float | None = None  # SIGKILL for what is left; None: it was not asked to end


class Keeper:
    """Takes care of the programs of one state folder. Call `adopt` once, then `beat` again and again."""

    def __init__(self, home: Path, logs: Path) -> None:
        self._home, self._folder, self._boot = home, home.stat(), boot()
        self._files, self._logs = ProcessFiles(home), LogFiles(logs)
        self._cares: dict[str, _Care] = {}
        self._wanted: tuple[str, ...] = ()  # as of the last beat
        self._has_failed = False  # in the last beat: what woke it is still there, and would wake it at once
        self._unlisted_since_s: dict[str, float] = {}  # when a program was first missed in the list
        self._returned: tuple[float, tuple[str, ...]] | None = None  # since when a folder that is this one's lists what
        self._forked = ForkedVersions(home)
        self._ends, self._changes = ProcessEnds(), FolderWatch(self._files.wanted_in)

    def adopt(self) -> None:
        """Take over all that still runs. Where nothing does, nothing has crashed: the machine was started again.

        Raises OSError where nobody knows what runs: a keeper that forgot some of it would start that again.
        """
        by_mark = marked(self._home)
        by_mark.pop(KEEPER, None)
        states = self._files.states()
        is_fresh = not by_mark and not any(state.is_alive for state in states.values())
        for name in sorted({*states, *by_mark}):
            state = ProcessState() if is_fresh else states.get(name, ProcessState())
            found = None if state.is_alive else leader(by_mark.get(name, ()))
            if found is not None:  # the keeper was killed before it could write down what it had started
                state = state.model_copy(
                    update={
                        "pid": found.pid,
                        "started_s": found.started_s,
                        "boot": self._boot,
                        "starts": state.starts + 1,
                    }
                )
            self._cares[name] = _Care(state)
            self._write(name)
            if state.is_alive:
                log.info("taken_over", program=name, pid=state.pid)

    def beat(self) -> None:
        """Bring what runs one step nearer to what should run."""
        self._forked.listen()
        wanted = self._wanted = self._should_run()
        self._has_failed = False
        for name in (*wanted, *(set(self._cares) - set(wanted))):
            try:
                if (care := self._cares.get(name)) and care.is_unidentified:
                    self._identify(name, care)
                self._keep(name) if name in wanted else self._stop(name)
            except OSError as error:  # a full disk, a full process table: the other programs are not left alone
                log.warning("not_done", program=name, error=_words(error))
                self._has_failed = True
        self._logs.rotate(lambda: self._droppable(wanted))

    def _should_run(self) -> tuple[str, ...]:
        """What should run. Where nobody knows, all that does.

        Also what was listed a moment ago: whoever moves the folder to another disk removes one file after the other.
        """
        listed = self._files.listed()
        if listed is None or not self._is_in_place():
            self._unlisted_since_s.clear()
            return tuple(self._cares)
        now_s, before = time.monotonic(), self._unlisted_since_s
        self._unlisted_since_s = {name: before.get(name, now_s) for name in set(self._cares) - set(listed)}
        return (*listed, *(name for name, since_s in self._unlisted_since_s.items() if now_s - since_s < BEAT_S))

    def _is_in_place(self) -> bool:
        """Whether the state folder is the one that this keeper has: what another one says is about another stack."""
        folder = self._there()
        return folder is not None and os.path.samestat(folder, self._folder)

    def _there(self) -> os.stat_result | None:
        """The folder that is at the place of the state folder; None: nobody sees one."""
        with suppress(OSError):
            return self._home.stat()
        return None

    def follow(self, lock: locks.Lock) -> bool:
        """Stay the only keeper where somebody removes the lock's file, or moves the folder to another disk and back.

        Returns: False where another process has the lock, and this one must do nothing more.
        """
        try:
            folder = self._there()  # before the look at the lock, which says whether it is the right one
            if lock.is_in_place:
                self._folder, self._returned = folder or self._folder, None
                return True
            is_here = self._is_in_place()
            if not (is_here or self._has_returned()):
                return True
            if not lock.take_again():
                log.critical("lock_lost", saw=f"another process has {lock.path}, which was replaced")
                return False
            self._folder, self._returned = folder or self._folder, None  # or moved a moment ago: the next look sees it
        except OSError as error:  # a full disk, or nobody can see the lock: the next look tries again
            log.warning("lock_not_taken", error=_words(error))
        else:
            log.warning(
                "lock_taken_again", saw="its file was replaced" if is_here else "the state folder is another one"
            )
        return True

    def _has_returned(self) -> bool:
        """Whether the folder that is there names the processes of this keeper, and is not just being filled."""
        listed, now_s = self._files.listed(), time.monotonic()
        kept = {(care.state.pid, care.state.started_s) for care in self._cares.values() if care.state.pid}
        if listed is None or not any((one.pid, one.started_s) in kept for one in self._files.states().values()):
            self._returned = None
            return False
        if self._returned is None or self._returned[1] != listed:
            self._returned = now_s, listed
        return now_s - self._returned[0] >= RETURNED_AFTER_S

    def pause(self) -> tuple[float, tuple[socket.socket | int, ...]]:
        """How long to wait for the next beat, seconds, and what can be read from when it is due before. Signals end it.

        Where the end of each process and each change of what should run is told, there is no reason to look often.
        """
        kept = [care.state.identity for care in self._cares.values() if care.child is None]
        ends = self._ends.of([identity for identity in kept if identity]) if self._is_calm else None
        if ends is None or not self._changes.is_in_force():
            return BEAT_S, self._forked.sockets
        return CALM_BEAT_S, (*self._forked.sockets, *ends)

    @property
    def _is_calm(self) -> bool:
        """Whether all that should run does, nothing else, and no time is waited for."""
        if self._has_failed or self._unlisted_since_s or set(self._cares) != set(self._wanted):
            return False
        return all(
            care.state.pid and care.kill_at_s is None and not care.failed_starts for care in self._cares.values()
        )

    def _droppable(self, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            if program := self._files.program(name):
                yield from program.droppable

    def _keep(self, name: str) -> None:
        care = self._cares.get(name)
        if care is None:
            care = self._cares[name] = _Care(ProcessState())
        if care.kill_at_s is not None:  # still ending: asked for again meanwhile, or its workers outlived it
            if self._has_ended(name, care):
                care.kill_at_s = None
        elif self._is_alive(care):
            if care.failed_starts and time.monotonic() - care.started_s > STARTED_AFTER_S:
                care.failed_starts = 0
        elif care.state.pid:
            self._note_exit(name, care)
        elif time.monotonic() >= care.due_s and (program := self._files.program(name)):
            self._start(program, care)

    def _stop(self, name: str) -> None:
        care = self._cares[name]
        if care.kill_at_s is None:
            log.info("stopping", program=name, pid=care.state.pid)
            self._ask_to_end(name, care, care.state.stop_wait_s)
        elif self._has_ended(name, care):
            log.info("stopped", program=name)
            self._files.drop_state(name)
            del self._cares[name]

    def _start(self, program: Program, care: _Care) -> None:
        given = variables_of(program, os.environ) | marks(self._home, program.name)
        if self._waits_to_be_forked(program, given, care):
            return
        care.started_s, care.waits_since_s, care.is_hidden = time.monotonic(), None, False
        try:
            pid = self._begin(program, given, care)
        except _NOT_STARTED as error:
            self._could_not_start(program.name, care, error)
            return
        care.state = ProcessState(
            pid=pid,
            boot=self._boot,
            starts=care.state.starts + 1,
            exits=care.state.exits,
            exit_code=care.state.exit_code,
            stop_wait_s=program.stop_wait_s,
            stop_order=program.stop_order,
        )
        self._identify(program.name, care)
        log.info("started", program=program.name, pid=pid, starts=care.state.starts)

    def _identify(self, name: str, care: _Care) -> None:
        """Write down which process was started, once somebody can look at it: others would take it for ended.

        Of one that is hidden from this user its number is written down at once: nobody else may look, either.
        """
        try:
            found = Identity.of(care.state.pid)
        except OSError as error:
            was_hidden, care.is_hidden = care.is_hidden, isinstance(error, PermissionError)
            care.is_unidentified = True
            if care.is_hidden and not was_hidden:
                self._write(name)
            return
        care.is_unidentified = care.is_hidden = False
        care.state = care.state.model_copy(update={"started_s": found.started_s if found else 0.0})
        self._write(name)

    def _waits_to_be_forked(self, program: Program, given: Mapping[str, str], care: _Care) -> bool:
        if not self._forked.is_preparing(program, given):
            return False
        now_s = time.monotonic()
        care.waits_since_s = now_s if care.waits_since_s is None else care.waits_since_s
        return now_s - care.waits_since_s < (NEXT_FORK_WAIT_S if care.state.starts else FIRST_FORK_WAIT_S)

    def _begin(self, program: Program, given: Mapping[str, str], care: _Care) -> int:
        """Start a process. Returns its pid."""
        with self._logs.open(program.name) as output:
            say_withheld(program, os.environ, output.fileno())
            care.child = None
            sandbox = offered(program, output.fileno())
            if (pid := self._forked.fork(program, given, output.fileno(), sandbox)) is not None:
                return pid
            care.child = subprocess.Popen(
                program.command,
                cwd=program.folder,
                env=given,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=confinement(program, output.fileno(), sandbox),  # noqa: PLW1509 - it has one thread
            )
            return care.child.pid

    def _could_not_start(self, name: str, care: _Care, error: Exception) -> None:
        self._wait_longer(care)
        with suppress(OSError), self._logs.open(name) as output:  # first: who sees the exit looks here for why
            output.write(f"{type(error).__name__}: it could not be started: {_words(error)}\n".encode())
        if not is_shortage(error):  # else it is the machine's trouble, not the program's
            care.state = care.state.model_copy(update={"exits": care.state.exits + 1})
            self._write(name)
        log.warning("could_not_start", program=name, error=_words(error))

    def _note_exit(self, name: str, care: _Care) -> None:
        """Write down that it ended by itself, and end what it left behind before it is started again."""
        code = care.child.returncode if care.child else self._forked.exit_code(care.state.pid)
        log.warning("exited", program=name, pid=care.state.pid, exit_code=code)
        if time.monotonic() - care.started_s < STARTED_AFTER_S:
            self._wait_longer(care)
        care.state = care.state.model_copy(update={"exits": care.state.exits + 1, "exit_code": code})
        care.kill_at_s = time.monotonic() + LEFT_BEHIND_S  # first: it is noted once, also where the search fails
        self._write(name)  # before the search, which takes its time: the controller decides by it
        if left := self._belongings(name, care):
            send(left, signal.SIGTERM)
        else:
            care.kill_at_s = None
            care.state = care.state.model_copy(update={"pid": 0})
            self._write(name)

    def _wait_longer(self, care: _Care) -> None:
        care.due_s = time.monotonic() + min(2**care.failed_starts, LONGEST_WAIT_S)
        care.failed_starts += 1

    def _ask_to_end(self, name: str, care: _Care, wait_s: float) -> None:
        send(self._belongings(name, care), signal.SIGTERM)
        care.kill_at_s = time.monotonic() + wait_s

    def _has_ended(self, name: str, care: _Care) -> bool:
        """Whether nothing of it is left; what is there after its time is killed."""
        is_late = time.monotonic() >= (care.kill_at_s or 0.0)
        if self._is_alive(care) and not is_late:
            return False
        left = self._belongings(name, care)
        if left and is_late:
            send(left, signal.SIGKILL)
        if not left and care.state.pid:
            care.state = care.state.model_copy(update={"pid": 0})
            self._write(name)
        return not left

    def _belongings(self, name: str, care: _Care) -> list[psutil.Process]:
        return belongings(care.state.identity, marked(self._home).get(name, ()))

    def _is_alive(self, care: _Care) -> bool:
        """Raises OSError: nobody knows."""
        if care.child is not None:
            return care.child.poll() is None
        return care.is_unidentified or care.state.is_alive

    def _write(self, name: str) -> None:
        try:
            self._files.write_state(name, self._cares[name].state)
        except OSError as error:  # a full disk; the mark in its environment finds it, too
            log.warning("state_not_written", program=name, error=_words(error))


def _words(error: Exception) -> str:
    """What went wrong, without the values of an environment."""
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}{f': {error.filename}' if error.filename else ''}"
    if isinstance(error, StackError):
        return f"{error.what}: {error.saw}"
    return str(error)
