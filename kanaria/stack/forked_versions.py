"""The keeper's fork server: started when a version comes that can be forked, and anew when one needs another one.

Where it cannot fork, for whatever reason, the keeper starts the version by itself, and it imports what it needs.
"""

import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import structlog

from kanaria.stack import fork_server, model_server
from kanaria.stack.confinement import confine
from kanaria.stack.processes import marks
from kanaria.stack.sandbox import Sandbox
from kanaria.stack.supervision import KEEPER, Program

log = structlog.get_logger()

# Variables that nothing reads while it is imported. All others must be equal in versions that one server forks.
_OF_A_VERSION = ("BENTOML_HOME", "BENTOML_RESULT_STORE")
_OWN = "KANARIA_"
# What of a program a fork has, and what the keeper sees to. One of which anything else is said is started by itself.
_UNDERSTOOD = (
    "name",
    "command",
    "environment",
    "folder",
    "listed",
    "is_confined",
    "sandbox",
    "stop_wait_s",
    "stop_order",
    "droppable",
)
_ROOM = {"ROOM_FOR_VARIABLES": "-" * 120_000}  # for the variables of a version, see `shown_words`
_ROOM_FOR_WORDS = " " * 250
_IMPORTED_WITHIN_S = 60.0  # no version waits so long, see `keeper`
_FORKED_WITHIN_S, _SAID_WITHIN_S = 3.0, 0.5  # the keeper does nothing else meanwhile
AGAIN_AFTER_S = 300.0  # where it failed for a reason that may pass


@dataclass(frozen=True, slots=True)
class _Ground:
    """What versions must have in common that are forked from one server."""

    python: tuple[str, ...]
    folder: str
    variables: frozenset[tuple[str, str]]
    packages: tuple[int, ...]  # when something was installed or removed last, by folder

    def difference(self, other: "_Ground") -> str:
        """What of `other` is not so here, in words, without values of variables."""
        names = sorted({name for name, _ in self.variables ^ other.variables})
        found = {
            "another Python": self.python != other.python,
            "another folder": self.folder != other.folder,
            f"other variables: {', '.join(names)}": bool(names),
            "packages were installed or removed": self.packages != other.packages,
        }
        return "; ".join(words for words, is_so in found.items() if is_so)


class ForkedVersions:
    """The fork server of one state folder. No method raises."""

    def __init__(self, home: Path, *, again_after_s: float = AGAIN_AFTER_S) -> None:
        self._home, self._again_after_s = home, again_after_s
        self._ground: _Ground | None = None  # of the server that was started last
        self._process: subprocess.Popen[bytes] | None = None  # None: there is none
        self._socket = socket.socket()
        self._is_ready, self._began_s = False, 0.0
        self._not_before_s: dict[_Ground, float] = {}  # when to try again after a failure, on the steady clock
        self._exit_codes: dict[int, int | None] = {}  # of what this server forked, by pid; None: not known

    def is_preparing(self, program: Program, variables: Mapping[str, str]) -> bool:
        """Whether a program, with all its variables, can be forked in a moment; asks for it. False: start it now."""
        ground = _ground(program, variables)
        if ground is None:
            return False
        self.listen()
        if self._is_importing:  # also for another one: two versions would end each other's server for ever
            return True
        if reason := self._why_another(ground):
            self.close()
            self._begin(ground, reason)
        return self._is_importing

    def _why_another(self, ground: _Ground) -> str:
        """Why versions of this ground need another server; "": they do not, or it would fail again."""
        if time.monotonic() < self._not_before_s.get(ground, 0.0):
            return ""
        if self._process is None or self._ground is None:
            return "there is none"
        return ground.difference(self._ground)

    @property
    def _is_importing(self) -> bool:
        return self._process is not None and not self._is_ready

    def fork(self, program: Program, variables: Mapping[str, str], output: int, sandbox: Sandbox | None) -> int | None:
        """Start a program in `sandbox` that writes to the open file `output`.

        Returns its pid; None: it could not be forked.
        """
        if not self._is_ready or _ground(program, variables) != self._ground:
            return None
        try:
            answer = self._asked(fork_server.written(program.command, program.folder, variables, sandbox), output)
        except OSError as error:
            answer = f"{error}".encode()
            self.close()  # whatever it still answers would be taken for the next one's
        if answer.isdigit():
            self._exit_codes[int(answer)] = None
            return int(answer)
        log.warning("not_forked", program=program.name, error=answer.decode(errors="replace") or "it ended")
        return None

    def exit_code(self, pid: int) -> int | None:
        """How a process that was forked has ended; None: nobody knows."""
        until_s = time.monotonic() + _SAID_WITHIN_S
        with suppress(OSError):
            while pid in self._exit_codes and self._exit_codes[pid] is None and self._heard(until_s):
                pass
        return self._exit_codes.pop(pid, None)

    def _asked(self, request: int, output: int) -> bytes:
        """Its answer. Raises OSError."""
        until_s = time.monotonic() + _FORKED_WITHIN_S
        try:
            self._socket.settimeout(_FORKED_WITHIN_S)
            socket.send_fds(self._socket, [fork_server.FORK], [request, output])
        finally:
            os.close(request)
        while (said := self._heard(until_s)).startswith(fork_server.ENDED):
            pass
        return said

    def _heard(self, until_s: float) -> bytes:
        """What it says next; notes how a version ended. Raises OSError when it says nothing until then."""
        self._socket.settimeout(max(0.0, until_s - time.monotonic()))
        said = self._socket.recv(fork_server.LARGEST_MESSAGE_BYTES)
        if said.startswith(fork_server.ENDED):
            pid, code = map(int, said.removeprefix(fork_server.ENDED).split())
            if pid in self._exit_codes:
                self._exit_codes[pid] = code
        return said

    def close(self) -> None:
        """End the server. What it forked goes on."""
        with suppress(OSError):
            while self._heard(0.0):
                pass
        self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process, self._is_ready = None, False
        self._exit_codes = {pid: code for pid, code in self._exit_codes.items() if code is not None}

    def _begin(self, ground: _Ground, reason: str) -> None:
        self._ground, self._began_s = ground, time.monotonic()
        try:
            self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with its:
                self._process = subprocess.Popen(
                    [*ground.python, fork_server.MODULE, str(its.fileno()), _ROOM_FOR_WORDS],
                    cwd=ground.folder,
                    env=dict(ground.variables) | marks(self._home, KEEPER) | _ROOM,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[its.fileno()],
                    start_new_session=True,
                    preexec_fn=confine,  # noqa: PLW1509 - the keeper has one thread
                )
        except (OSError, ValueError) as error:  # ValueError: a null byte
            self._give_up(str(error))
        else:
            log.info("fork_server_started", pid=self._process.pid, why=reason)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """What can be read from when there is something to `listen` to."""
        return (self._socket,) if self._process is not None else ()

    def listen(self) -> None:
        """Note whether the server has imported everything, how versions ended, and whether it has ended itself."""
        if self._is_importing:
            self._look()
        elif self._process is not None:
            try:
                while self._heard(0.0):
                    pass
            except BlockingIOError:
                return
            except OSError:  # it was killed before it read all that it was sent
                pass
            self.close()
            log.warning("fork_server_ended")

    def _look(self) -> None:
        """See whether it has imported everything."""
        try:
            said = self._heard(0.0)
        except BlockingIOError:
            if time.monotonic() - self._began_s > _IMPORTED_WITHIN_S:
                self._give_up("it does not become ready")
            return
        except OSError as error:
            said = str(error).encode()
        self._is_ready = said == fork_server.READY
        if not self._is_ready:
            self._give_up(said.decode(errors="replace") or "it ended")

    def _give_up(self, reason: str) -> None:
        """Do without one for versions of this ground: for good where what they import starts threads."""
        again_s = math.inf if reason.startswith(fork_server.THREADS.decode()) else self._again_after_s
        log.warning("no_fork_server", error=reason, again_in_s=None if again_s == math.inf else again_s)
        if self._ground is not None:
            self._not_before_s[self._ground] = time.monotonic() + again_s
        self.close()


def _ground(program: Program, variables: Mapping[str, str]) -> _Ground | None:
    """None: it cannot be forked."""
    command = tuple(program.command)
    if sys.platform != "linux" or model_server.MODULE not in command or not _is_understood(program):
        return None
    common = {
        (name, value) for name, value in variables.items() if name not in _OF_A_VERSION and not name.startswith(_OWN)
    }
    python = command[: command.index(model_server.MODULE)]
    return _Ground(python, program.folder, frozenset(common), tuple(_changes()))


def _is_understood(program: Program) -> bool:
    """Whether a fork is all that a program is to be: it is confined as its server is, or goes into its sandbox."""
    others = (each for each in fields(program) if each.name not in _UNDERSTOOD)
    return program.is_confined and all(getattr(program, each.name) == each.default for each in others)


def _changes() -> Iterator[int]:
    """Of a folder without installed packages nothing counts: programs write to it."""
    for folder in map(Path, sys.path):
        with suppress(OSError):
            if any(folder.glob("*.dist-info")):
                yield folder.stat().st_mtime_ns
