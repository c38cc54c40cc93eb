"""The keeper's loop: it starts the programs that should run, restarts those that ended, and stops all others."""

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

TICK_S = 0.2
IDLE_TICK_S = 1.0  # while everything runs and every change wakes the keeper: only a fallback
FOLDER_SETTLED_AFTER_S = 5.0  # a state folder whose list stayed the same for this long is completely copied back
STABLE_AFTER_S = 1.0  # a process that lived this long has started well: when it ends, it is restarted at once
LONGEST_WAIT_S = 20.0  # between two attempts to start
# Longest waits of a version for the fork server. A restart waits less: stable may be the only version that serves.
FIRST_FORK_WAIT_S, NEXT_FORK_WAIT_S = 15.0, 3.0
WORKERS_END_S = 5.0  # SIGTERM to SIGKILL for the workers that a process left when it ended by itself
# ValueError: a null byte. SubprocessError: the confinement failed.
_NOT_STARTED = (OSError, ValueError, StackError, subprocess.SubprocessError)


@dataclass
class _Record:
    """What this keeper remembers about one program. Facts that must survive the keeper are in `state`."""

    state: ProcessState
    child: subprocess.Popen[bytes] | None = None  # None: an earlier keeper started it, or it was forked
    is_unidentified: bool = False  # it could not be inspected at its start: it counts as alive until it can be
    is_hidden: bool = False  # another user's process, such as a program that becomes root
    started_s: float = 0.0  # monotonic, like the other times
    due_s: float = 0.0  # time of the next attempt to start
    failed_starts: int = 0
    waits_since_s: float | None = None  # start of the wait for the fork server; None: it does not wait
    kill_at_s: float | None = None  # time of SIGKILL for what is left; None: it was not asked to end


class Keeper:
    """Keeps the programs of one state folder running. Call `adopt` once, then `tick` repeatedly."""

    def __init__(self, home: Path, logs: Path) -> None:
        self._home, self._folder, self._boot = home, home.stat(), boot()
        self._files, self._logs = ProcessFiles(home), LogFiles(logs)
        self._records: dict[str, _Record] = {}
        self._wanted: tuple[str, ...] = ()  # as of the last tick
        self._has_failed = False  # in the last tick: its cause is still there and would wake the keeper at once
        self._unlisted_since_s: dict[str, float] = {}  # when each program disappeared from the list
        self._returned: tuple[float, tuple[str, ...]] | None = None  # since when the returned folder has had this list
        self._forked = ForkedVersions(home)
        self._ends, self._changes = ProcessEnds(), FolderWatch(self._files.wanted_in)

    def adopt(self) -> None:
        """Take over every process that still runs. If none runs, the machine was restarted: nothing counts as a crash.

        Raises OSError if the processes cannot be listed: a keeper that missed one would start it a second time.
        """
        by_mark = marked(self._home)
        by_mark.pop(KEEPER, None)
        states = self._files.states()
        is_fresh = not by_mark and not any(state.is_alive for state in states.values())
        for name in sorted({*states, *by_mark}):
            state = ProcessState() if is_fresh else states.get(name, ProcessState())
            found = None if state.is_alive else leader(by_mark.get(name, ()))
            if found is not None:  # the previous keeper was killed before it recorded this start
                state = state.model_copy(
                    update={
                        "pid": found.pid,
                        "started_s": found.started_s,
                        "boot": self._boot,
                        "starts": state.starts + 1,
                    }
                )
            self._records[name] = _Record(state)
            self._write(name)
            if state.is_alive:
                log.info("taken_over", program=name, pid=state.pid)

    def tick(self) -> None:
        """Bring the running programs one step closer to the wanted ones."""
        self._forked.listen()
        wanted = self._wanted = self._should_run()
        self._has_failed = False
        for name in (*wanted, *(set(self._records) - set(wanted))):
            try:
                if (record := self._records.get(name)) and record.is_unidentified:
                    self._identify(name, record)
                self._keep(name) if name in wanted else self._stop(name)
            except OSError as error:  # a full disk or process table: go on with the other programs
                log.warning("not_done", program=name, error=_words(error))
                self._has_failed = True
        self._logs.rotate(lambda: self._droppable(wanted))

    def _should_run(self) -> tuple[str, ...]:
        """The names of the programs that should run. If the list cannot be read, all that run now.

        Includes programs that were listed a moment ago: a move of the folder to another disk removes file after file.
        """
        listed = self._files.listed()
        if listed is None or not self._is_in_place():
            self._unlisted_since_s.clear()
            return tuple(self._records)
        now_s, before = time.monotonic(), self._unlisted_since_s
        self._unlisted_since_s = {name: before.get(name, now_s) for name in set(self._records) - set(listed)}
        return (*listed, *(name for name, since_s in self._unlisted_since_s.items() if now_s - since_s < TICK_S))

    def _is_in_place(self) -> bool:
        """Whether the state folder is still this keeper's own. Another folder at the path belongs to another stack."""
        folder = self._folder_now()
        return folder is not None and os.path.samestat(folder, self._folder)

    def _folder_now(self) -> os.stat_result | None:
        """The folder that is now at the state folder's path; None: there is none, or it cannot be read."""
        with suppress(OSError):
            return self._home.stat()
        return None

    def keep_lock(self, lock: locks.Lock) -> bool:
        """Stay the only keeper when the lock file is removed, or the folder is moved to another disk and back.

        Returns: False if another process has the lock: this one must then do nothing more.
        """
        try:
            folder = self._folder_now()  # read before the lock, which tells whether this is the right folder
            if lock.is_in_place:
                self._folder, self._returned = folder or self._folder, None
                return True
            is_here = self._is_in_place()
            if not (is_here or self._has_returned()):
                return True
            if not lock.take_again():
                log.critical("lock_lost", saw=f"another process has {lock.path}, which was replaced")
                return False
            # The folder may have moved just now: the next tick sees that.
            self._folder, self._returned = folder or self._folder, None
        except OSError as error:  # a full disk, or the lock cannot be read: the next tick tries again
            log.warning("lock_not_taken", error=_words(error))
        else:
            log.warning(
                "lock_taken_again", saw="its file was replaced" if is_here else "the state folder is another one"
            )
        return True

    def _has_returned(self) -> bool:
        """Whether the folder at the path lists this keeper's processes and is no longer being copied."""
        listed, now_s = self._files.listed(), time.monotonic()
        kept = {(record.state.pid, record.state.started_s) for record in self._records.values() if record.state.pid}
        if listed is None or not any((one.pid, one.started_s) in kept for one in self._files.states().values()):
            self._returned = None
            return False
        if self._returned is None or self._returned[1] != listed:
            self._returned = now_s, listed
        return now_s - self._returned[0] >= FOLDER_SETTLED_AFTER_S

    def pause(self) -> tuple[float, tuple[socket.socket | int, ...]]:
        """How long to wait for the next tick, seconds, and the files that become readable if it is due earlier.

        A signal ends the wait too. The wait is long if the system reports each end of a process and each change of
        the list.
        """
        kept = [record.state.identity for record in self._records.values() if record.child is None]
        ends = self._ends.of([identity for identity in kept if identity]) if self._is_idle else None
        if ends is None or not self._changes.is_in_force():
            return TICK_S, self._forked.sockets
        return IDLE_TICK_S, (*self._forked.sockets, *ends)

    @property
    def _is_idle(self) -> bool:
        """Whether exactly the wanted programs run and no timer is pending."""
        if self._has_failed or self._unlisted_since_s or set(self._records) != set(self._wanted):
            return False
        return all(
            record.state.pid and record.kill_at_s is None and not record.failed_starts
            for record in self._records.values()
        )

    def _droppable(self, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            if program := self._files.program(name):
                yield from program.droppable

    def _keep(self, name: str) -> None:
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = _Record(ProcessState())
        if record.kill_at_s is not None:  # still ending: wanted again meanwhile, or its workers outlived it
            if self._has_ended(name, record):
                record.kill_at_s = None
        elif self._is_alive(record):
            if record.failed_starts and time.monotonic() - record.started_s > STABLE_AFTER_S:
                record.failed_starts = 0
        elif record.state.pid:
            self._note_exit(name, record)
        elif time.monotonic() >= record.due_s and (program := self._files.program(name)):
            self._start(program, record)

    def _stop(self, name: str) -> None:
        record = self._records[name]
        if record.kill_at_s is None:
            log.info("stopping", program=name, pid=record.state.pid)
            self._ask_to_end(name, record, record.state.stop_wait_s)
        elif self._has_ended(name, record):
            log.info("stopped", program=name)
            self._files.drop_state(name)
            del self._records[name]

    def _start(self, program: Program, record: _Record) -> None:
        given = variables_of(program, os.environ) | marks(self._home, program.name)
        if self._waits_to_be_forked(program, given, record):
            return
        record.started_s, record.waits_since_s, record.is_hidden = time.monotonic(), None, False
        try:
            pid = self._begin(program, given, record)
        except _NOT_STARTED as error:
            self._could_not_start(program.name, record, error)
            return
        record.state = ProcessState(
            pid=pid,
            boot=self._boot,
            starts=record.state.starts + 1,
            exits=record.state.exits,
            exit_code=record.state.exit_code,
            stop_wait_s=program.stop_wait_s,
            stop_order=program.stop_order,
        )
        self._identify(program.name, record)
        log.info("started", program=program.name, pid=pid, starts=record.state.starts)

    def _identify(self, name: str, record: _Record) -> None:
        """Record which process was started, once it can be inspected: before that, readers would treat it as ended.

        If it is hidden from this user, its pid is recorded at once: other readers cannot inspect it either.
        """
        try:
            found = Identity.of(record.state.pid)
        except OSError as error:
            was_hidden, record.is_hidden = record.is_hidden, isinstance(error, PermissionError)
            record.is_unidentified = True
            if record.is_hidden and not was_hidden:
                self._write(name)
            return
        record.is_unidentified = record.is_hidden = False
        record.state = record.state.model_copy(update={"started_s": found.started_s if found else 0.0})
        self._write(name)

    def _waits_to_be_forked(self, program: Program, given: Mapping[str, str], record: _Record) -> bool:
        if not self._forked.is_preparing(program, given):
            return False
        now_s = time.monotonic()
        record.waits_since_s = now_s if record.waits_since_s is None else record.waits_since_s
        return now_s - record.waits_since_s < (NEXT_FORK_WAIT_S if record.state.starts else FIRST_FORK_WAIT_S)

    def _begin(self, program: Program, given: Mapping[str, str], record: _Record) -> int:
        """Start the process. Returns its pid."""
        with self._logs.open(program.name) as output:
            say_withheld(program, os.environ, output.fileno())
            record.child = None
            sandbox = offered(program, output.fileno())
            if (pid := self._forked.fork(program, given, output.fileno(), sandbox)) is not None:
                return pid
            record.child = subprocess.Popen(
                program.command,
                cwd=program.folder,
                env=given,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=confinement(program, output.fileno(), sandbox),  # noqa: PLW1509 - it has one thread
            )
            return record.child.pid

    def _could_not_start(self, name: str, record: _Record, error: Exception) -> None:
        self._wait_longer(record)
        # Before the exit is recorded: its reader looks here for the cause.
        with suppress(OSError), self._logs.open(name) as output:
            output.write(f"{type(error).__name__}: it could not be started: {_words(error)}\n".encode())
        if not is_shortage(error):  # a shortage is the machine's problem, not the program's
            record.state = record.state.model_copy(update={"exits": record.state.exits + 1})
            self._write(name)
        log.warning("could_not_start", program=name, error=_words(error))

    def _note_exit(self, name: str, record: _Record) -> None:
        """Record that the program ended by itself, and end the processes that it left before it is restarted."""
        code = record.child.returncode if record.child else self._forked.exit_code(record.state.pid)
        log.warning("exited", program=name, pid=record.state.pid, exit_code=code)
        if time.monotonic() - record.started_s < STABLE_AFTER_S:
            self._wait_longer(record)
        record.state = record.state.model_copy(update={"exits": record.state.exits + 1, "exit_code": code})
        # Set first: the exit counts once even if the search below fails.
        record.kill_at_s = time.monotonic() + WORKERS_END_S
        self._write(name)  # before the search, which is slow: the controller decides by this record
        if left := self._belongings(name, record):
            send(left, signal.SIGTERM)
        else:
            record.kill_at_s = None
            record.state = record.state.model_copy(update={"pid": 0})
            self._write(name)

    def _wait_longer(self, record: _Record) -> None:
        record.due_s = time.monotonic() + min(2**record.failed_starts, LONGEST_WAIT_S)
        record.failed_starts += 1

    def _ask_to_end(self, name: str, record: _Record, wait_s: float) -> None:
        send(self._belongings(name, record), signal.SIGTERM)
        record.kill_at_s = time.monotonic() + wait_s

    def _has_ended(self, name: str, record: _Record) -> bool:
        """Whether no process of the program is left. Kills those that are there after the deadline."""
        is_late = time.monotonic() >= (record.kill_at_s or 0.0)
        if self._is_alive(record) and not is_late:
            return False
        left = self._belongings(name, record)
        if left and is_late:
            send(left, signal.SIGKILL)
        if not left and record.state.pid:
            record.state = record.state.model_copy(update={"pid": 0})
            self._write(name)
        return not left

    def _belongings(self, name: str, record: _Record) -> list[psutil.Process]:
        return belongings(record.state.identity, marked(self._home).get(name, ()))

    def _is_alive(self, record: _Record) -> bool:
        """Raises OSError if it cannot be found out."""
        if record.child is not None:
            return record.child.poll() is None
        return record.is_unidentified or record.state.is_alive

    def _write(self, name: str) -> None:
        try:
            self._files.write_state(name, self._records[name].state)
        except OSError as error:  # a full disk; the mark in its environment identifies it as well
            log.warning("state_not_written", program=name, error=_words(error))


def _words(error: Exception) -> str:
    """The text of the error without values of environment variables."""
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}{f': {error.filename}' if error.filename else ''}"
    if isinstance(error, StackError):
        return f"{error.what}: {error.saw}"
    return str(error)
