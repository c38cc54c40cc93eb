"""The keeper's fork server. It is started for the first version that can be forked, and replaced if one needs another.

If it cannot fork a version, the keeper starts the version without it, and the version imports what it needs.
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

# Variables that no import reads. All other variables must be equal in the versions that one server forks.
_OF_A_VERSION = ("BENTOML_HOME", "BENTOML_RESULT_STORE")
_OWN = "KANARIA_"
# The fields of a program that a fork or the keeper applies. A program with any other field set is started without it.
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
_ROOM = {"ROOM_FOR_VARIABLES": "-" * 120_000}  # space for the variables of a version, see `shown_words`
_ROOM_FOR_WORDS = " " * 250
_IMPORTED_WITHIN_S = 60.0  # versions wait less, see `keeper_loop`
_FORKED_WITHIN_S, _SAID_WITHIN_S = 3.0, 0.5  # the keeper is blocked meanwhile
AGAIN_AFTER_S = 300.0  # after a failure with a cause that may pass


@dataclass(frozen=True, slots=True)
class _Base:
    """What the versions that one server forks must have in common."""

    python: tuple[str, ...]
    folder: str
    variables: frozenset[tuple[str, str]]
    packages: tuple[int, ...]  # by folder, when a package was last installed or removed

    def difference(self, other: "_Base") -> str:
        """How this base differs from `other`, in words, without the values of variables."""
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
        self._base: _Base | None = None  # of the last server that was started
        self._process: subprocess.Popen[bytes] | None = None  # None: no server runs
        self._socket = socket.socket()
        self._is_ready, self._began_s = False, 0.0
        self._not_before_s: dict[_Base, float] = {}  # when to try again after a failure, monotonic
        self._exit_codes: dict[int, int | None] = {}  # of the forked processes, by pid; None: unknown

    def is_preparing(self, program: Program, variables: Mapping[str, str]) -> bool:
        """Whether the program can be forked soon; starts a server for it if needed. False: start it without one."""
        base = _base_of(program, variables)
        if base is None:
            return False
        self.listen()
        if self._is_importing:  # even for another base: two versions would replace each other's server forever
            return True
        if reason := self._why_another(base):
            self.close()
            self._begin(base, reason)
        return self._is_importing

    def _why_another(self, base: _Base) -> str:
        """Why versions of this base need another server; "": they do not, or it would fail again."""
        if time.monotonic() < self._not_before_s.get(base, 0.0):
            return ""
        if self._process is None or self._base is None:
            return "none runs"
        return base.difference(self._base)

    @property
    def _is_importing(self) -> bool:
        return self._process is not None and not self._is_ready

    def fork(self, program: Program, variables: Mapping[str, str], output: int, sandbox: Sandbox | None) -> int | None:
        """Fork a program into `sandbox`; it writes to the open file `output`.

        Returns: its pid; None if it could not be forked.
        """
        if not self._is_ready or _base_of(program, variables) != self._base:
            return None
        try:
            answer = self._asked(fork_server.written(program.command, program.folder, variables, sandbox), output)
        except OSError as error:
            answer = f"{error}".encode()
            self.close()  # a late answer would be read as the answer to the next request
        if answer.isdigit():
            self._exit_codes[int(answer)] = None
            return int(answer)
        log.warning("not_forked", program=program.name, error=answer.decode(errors="replace") or "it ended")
        return None

    def exit_code(self, pid: int) -> int | None:
        """The exit code of a forked process; None if it is unknown."""
        until_s = time.monotonic() + _SAID_WITHIN_S
        with suppress(OSError):
            while pid in self._exit_codes and self._exit_codes[pid] is None and self._heard(until_s):
                pass
        return self._exit_codes.pop(pid, None)

    def _asked(self, request: int, output: int) -> bytes:
        """Send a request and return the answer. Raises OSError."""
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
        """Receive the next message; records exit codes. Raises OSError if none arrives until `until_s`."""
        self._socket.settimeout(max(0.0, until_s - time.monotonic()))
        said = self._socket.recv(fork_server.LARGEST_MESSAGE_BYTES)
        if said.startswith(fork_server.ENDED):
            pid, code = map(int, said.removeprefix(fork_server.ENDED).split())
            if pid in self._exit_codes:
                self._exit_codes[pid] = code
        return said

    def close(self) -> None:
        """Stop the server. The forked processes run on."""
        with suppress(OSError):
            while self._heard(0.0):
                pass
        self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process, self._is_ready = None, False
        self._exit_codes = {pid: code for pid, code in self._exit_codes.items() if code is not None}

    def _begin(self, base: _Base, reason: str) -> None:
        self._base, self._began_s = base, time.monotonic()
        try:
            self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with its:
                self._process = subprocess.Popen(
                    [*base.python, fork_server.MODULE, str(its.fileno()), _ROOM_FOR_WORDS],
                    cwd=base.folder,
                    env=dict(base.variables) | marks(self._home, KEEPER) | _ROOM,
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
        """Sockets that become readable when `listen` has something to read."""
        return (self._socket,) if self._process is not None else ()

    def listen(self) -> None:
        """Process the server's messages: whether it is ready, how versions ended, and whether it has ended."""
        if self._is_importing:
            self._look()
        elif self._process is not None:
            try:
                while self._heard(0.0):
                    pass
            except BlockingIOError:
                return
            except OSError:  # it was killed before it had read everything
                pass
            self.close()
            log.warning("fork_server_ended")

    def _look(self) -> None:
        """Check whether it has imported everything."""
        try:
            said = self._heard(0.0)
        except BlockingIOError:
            if time.monotonic() - self._began_s > _IMPORTED_WITHIN_S:
                self._give_up(f"it was not ready after {_IMPORTED_WITHIN_S:.0f} s")
            return
        except OSError as error:
            said = str(error).encode()
        self._is_ready = said == fork_server.READY
        if not self._is_ready:
            self._give_up(said.decode(errors="replace") or "it ended")

    def _give_up(self, reason: str) -> None:
        """Use no server for versions of this base: never again if their imports start threads."""
        again_s = math.inf if reason.startswith(fork_server.THREADS.decode()) else self._again_after_s
        log.warning("no_fork_server", error=reason, again_in_s=None if again_s == math.inf else again_s)
        if self._base is not None:
            self._not_before_s[self._base] = time.monotonic() + again_s
        self.close()


def _base_of(program: Program, variables: Mapping[str, str]) -> _Base | None:
    """The base that the program needs; None if it cannot be forked."""
    command = tuple(program.command)
    if sys.platform != "linux" or model_server.MODULE not in command or not _is_understood(program):
        return None
    common = {
        (name, value) for name, value in variables.items() if name not in _OF_A_VERSION and not name.startswith(_OWN)
    }
    python = command[: command.index(model_server.MODULE)]
    return _Base(python, program.folder, frozenset(common), tuple(_changes()))


def _is_understood(program: Program) -> bool:
    """Whether a fork can apply every field of the program. A fork is confined as the fork server is."""
    others = (each for each in fields(program) if each.name not in _UNDERSTOOD)
    return program.is_confined and all(getattr(program, each.name) == each.default for each in others)


def _changes() -> Iterator[int]:
    """When packages changed, by folder. Skips folders without installed packages: programs write to them."""
    for folder in map(Path, sys.path):
        with suppress(OSError):
            if any(folder.glob("*.dist-info")):
                yield folder.stat().st_mtime_ns
