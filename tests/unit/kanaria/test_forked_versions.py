"""Which programs are forked; tests with real versions prove how."""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from kanaria.stack import fork_server, model_server
from kanaria.stack.forked_versions import ForkedVersions
from kanaria.stack.python import own_module
from kanaria.stack.supervision import Program
from tests.support.processes import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="versions are forked on Linux only")

COMMAND = own_module(model_server.MODULE, "m:v1")


@dataclass(frozen=True, slots=True)
class ProgramWithNewField(Program):
    """A program with one field more than today's programs have."""

    seclusion: str | None = None


@pytest.fixture
def forked(tmp_path: Path) -> Iterator[ForkedVersions]:
    made = ForkedVersions(tmp_path)
    yield made
    made.close()


def test_a_confined_version_with_the_standard_server_is_forked(forked: ForkedVersions) -> None:
    """Its keeper waits for the fork server."""
    assert forked.is_preparing(ProgramWithNewField("m@v1", COMMAND, is_confined=True), {})


@pytest.mark.parametrize(
    "program",
    [
        ProgramWithNewField("m@v1", COMMAND),
        ProgramWithNewField("m@v1", COMMAND, is_confined=True, seclusion="complete"),
        ProgramWithNewField("m@v1", own_module("bentoml", "serve", "m:v1"), is_confined=True),
    ],
    ids=["gains rights", "unknown field", "another server"],
)
def test_a_program_that_a_fork_cannot_reproduce_is_started_separately(forked: ForkedVersions, program: Program) -> None:
    """No fork server starts for it here, and no confinement is lost."""
    assert not forked.is_preparing(program, {})
    assert forked.fork(program, {}, 1, None) is None


def test_a_fork_server_that_ends_during_its_imports_is_retried_later(tmp_path: Path) -> None:
    """Until then, versions start separately at once."""
    forked, version = ForkedVersions(tmp_path, again_after_s=0.5), Program("m@v1", COMMAND, is_confined=True)
    with capture_logs() as logs:
        assert forked.is_preparing(version, dict(os.environ))
        the_server().kill()
        until(lambda: not forked.is_preparing(version, dict(os.environ)))
        until(lambda: forked.is_preparing(version, dict(os.environ)))
        forked.close()
    assert [line["event"] for line in logs] == ["fork_server_started", "no_fork_server", "fork_server_started"]


def test_a_fork_server_whose_imports_start_threads_is_not_retried(tmp_path: Path) -> None:
    """It is not retried after a fork server for other versions either; those versions get theirs."""
    (tmp_path / "sitecustomize.py").write_text(
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    forked, version = ForkedVersions(tmp_path, again_after_s=0.0), Program("m@v1", COMMAND, is_confined=True)
    threads, none = {**os.environ, "PYTHONPATH": paths(tmp_path)}, dict(os.environ)
    with capture_logs() as logs:
        assert forked.is_preparing(version, threads)
        until(lambda: not forked.is_preparing(version, threads), limit_s=60)
        assert forked.is_preparing(version, none)
        until(lambda: not forked.is_preparing(version, none), limit_s=60)
        assert not forked.is_preparing(version, threads)
        forked.close()
    assert [line["event"] for line in logs] == ["fork_server_started", "no_fork_server", "fork_server_started"]


def the_server() -> psutil.Process:
    return next(each for each in psutil.Process().children() if fork_server.MODULE in each.cmdline())


def paths(*more: Path) -> str:
    return os.pathsep.join((*map(str, more), *filter(None, [os.environ.get("PYTHONPATH")])))


@pytest.mark.parametrize("is_ready", [False, True])
def test_a_fork_server_whose_keeper_was_killed_ends_quietly(*, is_ready: bool) -> None:
    """The keeper was killed during the imports, or before it read the readiness message.

    This left a traceback in the log.
    """
    keeper, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", fork_server.MODULE, str(own.fileno())]
    with keeper, own, subprocess.Popen(command, pass_fds=[own.fileno()], stderr=subprocess.PIPE) as process:
        own.close()
        if is_ready:
            select.select([keeper], [], [])
        keeper.close()
        _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, b"")
