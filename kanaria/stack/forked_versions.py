"""The keeper's fork server: started when a version comes that can be forked, and anew when one needs another one.

Where it cannot fork, for whatever reason, the keeper starts the version by itself, and it imports what it needs.
"""

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
_IMPORTED_WITHIN_S, _FORKED_WITHIN_S = 60.0, 5.0


@dataclass(frozen=True, slots=True)
class _Ground:
    """What versions must have in common that are forked from one server."""

    python: tuple[str, ...]
    folder: str
    variables: frozenset[tuple[str, str]]
    packages: tuple[int, ...]  # when something was installed or removed last, by folder


class ForkedVersions:
    """The fork server of one state folder. No method raises."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._ground: _Ground | None = None  # of the server that was started last
        self._process: subprocess.Popen[bytes] | None = None  # None: there is none
        self._socket = socket.socket()
        self._is_ready, self._began_s = False, 0.0

    def is_preparing(self, program: Program, variables: Mapping[str, str]) -> bool:
        """Whether a program, with all its variables, can be forked in a moment; asks for it. False: start it now."""
        ground = _ground(program, variables)
        if ground is None:
            return False
        self._look()
        if self._is_importing:  # also for another one: two versions would end each other's server for ever
            return True
        if ground != self._ground or self._has_ended:
            self.close()
            self._ground = ground
            self._begin(ground)
        return self._is_importing

    @property
    def _is_importing(self) -> bool:
        return self._process is not None and not self._is_ready

    @property
    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

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
            self._ground = None  # the next version gets another server
        if answer.isdigit():
            return int(answer)
        log.warning("not_forked", program=program.name, error=answer.decode(errors="replace") or "it ended")
        return None

    def _asked(self, request: int, output: int) -> bytes:
        """Its answer. Raises OSError."""
        try:
            self._socket.settimeout(_FORKED_WITHIN_S)
            socket.send_fds(self._socket, [fork_server.FORK], [request, output])
            return self._socket.recv(fork_server.LARGEST_MESSAGE_BYTES)
        finally:
            os.close(request)

    def close(self) -> None:
        """End the server. What it forked goes on."""
        self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process, self._is_ready = None, False

    def _begin(self, ground: _Ground) -> None:
        self._began_s = time.monotonic()
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

    def _look(self) -> None:
        """See whether it has imported everything."""
        if not self._is_importing:
            return
        self._socket.setblocking(False)
        try:
            said = self._socket.recv(fork_server.LARGEST_MESSAGE_BYTES)
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
        """Do without one for versions of this ground."""
        log.warning("no_fork_server", error=reason)
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
    for folder in map(Path, sys.path):
        with suppress(OSError):
            yield folder.stat().st_mtime_ns
