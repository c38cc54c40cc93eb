"""Serves a version for one command only: on a free port, with its own records, outside the stack."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kanaria.errors import StackError
from kanaria.settings import Settings
from kanaria.stack.bentos import keeps_contract, make_own_home
from kanaria.stack.confinement import confinement, offered, variables_of
from kanaria.stack.fleet import TASK_RESULTS, program_of, server_environment
from kanaria.stack.guarded_ports import guarding
from kanaria.stack.listed import Listed
from kanaria.stack.log_words import last_words, what_it_lacks
from kanaria.stack.out_of_reach import sandbox_of
from kanaria.stack.ports import free_port
from kanaria.stack.probes import polled, unready
from kanaria.stack.supervision import Program
from kanaria.stack.temporary_folders import temporary_folder
from kanaria.stack.version_process import SEAL_OPTION, prepare, secluded, server_command, variables_for
from kanaria.stack.versions import Versions
from kanaria.stack.workers import Workers
from rollout.fleet import MOST_RESTARTS, Backend, Readiness

_START_WITHIN_S = 120.0
_REMOTE_WITHIN_S = 5.0  # it should run already
_STOP_WITHIN_S = 30.0


class DidNotStart(StackError):
    """The version could not be started, and the machine is not the cause."""


@dataclass(frozen=True, slots=True)
class TemporaryServer:
    """A version that is ready."""

    backend: Backend
    pid: int | None  # None: Kanaria does not run it
    took_s: float  # from start to ready


@contextmanager
def temporary_server(settings: Settings, tag: str, *, say: Callable[[str], None]) -> Iterator[TemporaryServer]:
    """Serve `tag` until the block ends. Raises DidNotStart, InstallError, SetupError."""
    versions = Versions(settings.versions)
    listed, port, secret = versions.listed(tag), free_port(), settings.version_secret
    if listed is None:
        prepare(settings, tag, say=say)
    started_s = time.monotonic()
    backend = listed.backend(tag, port, secret=secret) if listed else Backend(tag, "127.0.0.1", port, secret=secret)
    readiness = versions.service(tag).readiness
    if listed is not None and listed.url is not None:
        _wait_for_others(backend, readiness)
        yield TemporaryServer(backend, None, time.monotonic() - started_s)
        return
    with temporary_folder(settings) as folder:
        # Separate: the log must not be a link that a version created.
        log, records = folder / "server.log", folder / "own"
        records.mkdir(mode=0o700)
        own = program_of(listed, tag, port, settings.pass_env, secret=backend.secret) if listed else None
        program = own or _bento(settings, backend, records)
        process = _begin(program, log)
        try:
            _wait_until_ready(process, backend, readiness, log, do=_alone(tag, listed), program=program)
            yield TemporaryServer(backend, process.pid, time.monotonic() - started_s)
        finally:
            _stop(process)


def _bento(settings: Settings, backend: Backend, records: Path) -> Program:
    tag, port = backend.tag, backend.port
    own = {**server_environment(settings, tag, records=records), TASK_RESULTS: str(records / "tasks.db")}
    command = server_command(settings, tag, port)
    variables = own | guarding(port, backend.secret)
    if SEAL_OPTION in command:
        variables |= {"BENTOML_HOME": str(records / "sealed"), "KANARIA_HOME": str(settings.root)}
    elif not keeps_contract(tag):  # as in the stack: processes are told apart by their BentoML home
        make_own_home(records / "home")
        variables |= {"BENTOML_HOME": str(records / "home")}
    listed = variables_for(tag, command, settings.pass_env)
    sandbox = sandbox_of(settings, tag, [records])
    return secluded(Program(tag, command, variables, listed=listed, is_confined=True), sandbox)


def _begin(program: Program, log: Path) -> subprocess.Popen[bytes]:
    try:
        with log.open("wb") as output:
            return subprocess.Popen(
                program.command,
                cwd=program.folder,
                env=variables_of(program, os.environ),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its workers can be killed with it, and Ctrl-C reaches only this process
                preexec_fn=confinement(program, output.fileno(), offered(program, output.fileno())),  # noqa: PLW1509 - a command has one thread
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise DidNotStart(f"{program.name} did not start", saw=str(error), do="correct its command") from error


def _alone(tag: str, listed: Listed | None) -> str:
    return f"start it alone ({'as in its entry' if listed else f'`bentoml serve {tag}`'}) and read its output"


def _wait_for_others(backend: Backend, readiness: Readiness) -> None:
    deadline_s = time.monotonic() + _REMOTE_WITHIN_S
    server = polled(backend)
    while trouble := unready(server, backend, readiness):
        if time.monotonic() > deadline_s:
            raise DidNotStart(f"{backend.tag} is not ready", saw=trouble, do="start it, or correct its `url`")
        time.sleep(0.1)


def _wait_until_ready(
    process: subprocess.Popen[bytes], backend: Backend, readiness: Readiness, log: Path, *, do: str, program: Program
) -> None:
    started_s = time.monotonic()
    server = polled(backend)
    workers, lost = Workers(), 0
    while trouble := unready(server, backend, readiness):
        waited_s = time.monotonic() - started_s
        lost += workers.ended(process.pid)
        if process.poll() is None and waited_s < _START_WITHIN_S and lost <= MOST_RESTARTS:
            time.sleep(0.1)
            continue
        is_silent = process.poll() is None and lost <= MOST_RESTARTS
        what = f"was not ready after {waited_s:.0f} s" if is_silent else "did not start"
        last = trouble if process.poll() is None else f"exit code {process.returncode}, no output"
        saw = "; ".join(filter(None, (last_words(log) or last, what_it_lacks(program.listed or (), log))))
        raise DidNotStart(f"{backend.tag} {what}", saw=saw, do=do)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_WITHIN_S)
    with suppress(ProcessLookupError):  # what is left of its group: workers of a process that was killed
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
