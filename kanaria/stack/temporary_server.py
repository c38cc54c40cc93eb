"""A version served for one command alone: on a free port, with records of its own, away from the stack."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contract import loopback
from contract.http import READY_PATH
from kanaria.errors import StackError
from kanaria.settings import Settings
from kanaria.stack.fleet import TASK_RESULTS, last_words, server_environment
from kanaria.stack.ports import free_port
from kanaria.stack.version_process import prepare, server_command
from rollout.fleet import Backend

_START_WITHIN_S = 120.0
_STOP_WITHIN_S = 30.0


class DidNotStart(StackError):
    """The version could not be started; the machine is not the cause."""


@dataclass(frozen=True, slots=True)
class TemporaryServer:
    """A version that is ready."""

    backend: Backend
    pid: int
    took_s: float  # from start to ready


@contextmanager
def temporary_server(settings: Settings, tag: str, *, say: Callable[[str], None]) -> Iterator[TemporaryServer]:
    """Serve `tag` until the block ends. Raises DidNotStart, InstallError."""
    prepare(settings, tag, say=say)
    backend = Backend(tag, "127.0.0.1", free_port())
    with tempfile.TemporaryDirectory(prefix="kanaria-") as name:
        log = Path(name, "server.log")
        started_s = time.monotonic()
        with log.open("wb") as output:
            own = {**server_environment(settings, tag, records=Path(name)), TASK_RESULTS: str(Path(name, "tasks.db"))}
            process = subprocess.Popen(
                server_command(settings, tag, backend.port),
                env={**os.environ, **own},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its workers end with it, and Ctrl-C reaches only us
            )
        try:
            _wait_until_ready(process, backend, log, started_s)
            yield TemporaryServer(backend, process.pid, time.monotonic() - started_s)
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], backend: Backend, log: Path, started_s: float) -> None:
    while not loopback.answers(f"{backend.url}{READY_PATH}", timeout_s=1.0):
        waited_s = time.monotonic() - started_s
        if process.poll() is None and waited_s < _START_WITHIN_S:
            time.sleep(0.1)
            continue
        what = f"was not ready after {waited_s:.0f} s" if process.poll() is None else "did not start"
        raise DidNotStart(
            f"{backend.tag} {what}",
            saw=last_words(log) or f"exit code {process.returncode}, no word from it",
            do=f"start it alone (`bentoml serve {backend.tag}`) and read what it says",
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
