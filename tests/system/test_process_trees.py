"""Identifying processes, with and without /proc."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from kanaria.stack import identity, processes
from kanaria.stack.identity import Identity
from kanaria.stack.process_state import ProcessState
from kanaria.stack.processes import belongings, leader, marked
from tests.support.absence import leave_out
from tests.support.no_files import no_file_to_open
from tests.support.processes import SLEEPER, WITH_WORKER, until


@pytest.fixture(params=["linux", "darwin"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Start times from /proc, or only from psutil as on macOS."""
    if request.param == "darwin":
        for module in (identity, processes):
            monkeypatch.setattr(module, "start_of", identity._start_by_psutil)
    elif sys.platform != "linux":
        pytest.skip("there is no /proc")
    return str(request.param)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEPER, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_a_process_is_alive_until_it_ends(platform: str, sleeper: subprocess.Popen[bytes]) -> None:
    """Dead are a process that ended without being waited for, another start time, and pid 0."""
    found = Identity.of(sleeper.pid)
    assert found is not None
    assert found.is_alive
    assert not Identity(found.pid, found.started_s + 1).is_alive
    os.kill(sleeper.pid, signal.SIGSTOP)
    assert found.is_alive
    sleeper.kill()
    until(lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_ZOMBIE)
    assert not found.is_alive
    sleeper.wait()
    assert not found.is_alive
    assert Identity.of(0) is None


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_start_time_does_not_move_with_the_wall_clock(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changing the clock moves the boot time that psutil counts from."""
    found = Identity.of(sleeper.pid)
    assert found is not None
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: 12345.0)
    assert Identity.of(sleeper.pid) == found
    assert found.is_alive


def test_a_reused_pid_does_not_match_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    """The session of the process that has the pid now does not belong to the program."""
    found = Identity.of(sleeper.pid)
    assert found is not None
    assert [process.pid for process in belongings(found, ())] == [sleeper.pid]
    assert belongings(Identity(found.pid, found.started_s - 50), ()) == []


def test_workers_without_a_parent_still_belong_to_a_program() -> None:
    """They are found by the session of their dead parent; a worker with its own session is found by its mark."""
    parent = subprocess.Popen(["sh", "-c", "sleep 600 & sleep 600 & wait"], start_new_session=True)
    found = Identity.of(parent.pid)
    assert found is not None
    until(lambda: len(belongings(found, ())) == 3)
    parent.kill()
    parent.wait()
    left = belongings(found, ())
    assert len(left) == 2
    for process in left:
        process.kill()


def test_the_leader_is_the_oldest_process_of_a_program_with_a_session() -> None:
    """Its workers may have their own sessions, which started later."""
    parent = subprocess.Popen(WITH_WORKER, start_new_session=True)
    try:
        (worker,) = until(lambda: psutil.Process(parent.pid).children())
        until(lambda: os.getsid(worker.pid) == worker.pid)
        assert leader([worker, psutil.Process(parent.pid)]) == Identity.of(parent.pid)
        worker.kill()
    finally:
        parent.kill()
        parent.wait()


def test_a_process_that_cannot_be_inspected_is_not_treated_as_ended(
    monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes]
) -> None:
    """It was, without /proc. A macOS sandbox may forbid the inspection."""

    def forbidden(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "status", forbidden)
    with pytest.raises(PermissionError, match="is hidden from this user"):
        identity._start_by_psutil(sleeper.pid)


@pytest.mark.parametrize("is_closed", [True, False])
def test_processes_are_found_if_the_system_gives_no_boot_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes], *, is_closed: bool
) -> None:
    """No keeper started, and no command could list the processes."""

    def forbidden(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    found = Identity.of(sleeper.pid)
    assert found
    state = ProcessState(pid=found.pid, started_s=found.started_s, boot=identity.boot())
    identity.boot.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(identity, "_BOOT_ID", tmp_path / "boot_id")
            if is_closed:
                patch.setattr(Path, "read_text", forbidden)
            assert identity.boot() == ""
            assert (state.is_alive, state.model_copy(update={"boot": ""}).is_alive) == (True, True)
    finally:
        identity.boot.cache_clear()
    assert (state.is_alive, state.model_copy(update={"boot": "another"}).is_alive) == (True, False)


def test_without_file_descriptors_liveness_is_unknown(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """Every process was treated as ended."""
    found = Identity.of(sleeper.pid)
    assert found is not None
    for ask in (
        lambda: found.is_alive,
        lambda: Identity.of(1),
        lambda: marked(tmp_path),
        lambda: belongings(found, ()),
    ):
        with no_file_to_open(), pytest.raises(OSError, match="Too many open files"):
            ask()
    assert found.is_alive


# The state in `home` of a program whose process belongs to another user, while processes of others are hidden.
HIDDEN = """
import pathlib, signal, subprocess, sys, time
from kanaria.stack.keeper_loop import TICK_S, Keeper
from kanaria.stack.supervision import Program, Supervisor
home, program, late_s = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
identify = Keeper._identify
Keeper._identify = lambda *given: time.sleep(late_s) or identify(*given)
supervisor = Supervisor(home, home / "logs")
supervisor.add(Program("one", (program, "600"), folder="/"))
first = Keeper(home, home / "logs")
first.adopt()
first.tick()
seen = [supervisor.info("one").is_alive]
pid, state = first._records["one"].state.pid, first._records["one"].state
second = Keeper(home, home / "logs")
second.adopt()
for _ in range(3):
    second.tick()
    time.sleep(TICK_S)
again = second._records["one"].state
elsewhere = state.model_copy(update={"boot": "another"})
print([*seen, supervisor.info("one").is_alive, again.pid == pid, again.exits, elsewhere.is_alive])
"""


@pytest.mark.parametrize("hidepid", [1, 2])
@pytest.mark.parametrize("late_s", ["0", "0.3"], ids=["at once", "late"])
@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_hidden_process_is_not_started_twice(hidepid: int, late_s: str) -> None:
    """/proc may hide other users' processes, such as a program that becomes root: it was treated as ended.

    If it was hidden before the keeper could look, nothing was recorded, and the next keeper did not know it.
    """
    home = Path(tempfile.mkdtemp())  # accessible to every user; pytest's folders are not
    program = home / "becomes-root"
    try:
        shutil.copy("/bin/sleep", program)
        (home / "logs").mkdir()
        for path, mode in ((home, 0o777), (home / "logs", 0o777), (program, 0o4755)):
            path.chmod(mode)
        mount = f'mount -t proc -o hidepid={hidepid} proc /proc && exec "$@"'
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        command = ["unshare", "--mount", "sh", "-c", mount, "sh", *user, sys.executable, "-c", HIDDEN]
        command += [str(home), str(program), late_s]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        if os.getuid() or "mount:" in done.stderr or "unshare:" in done.stderr:
            leave_out(f"a /proc of its own cannot be mounted here: {done.stderr.strip()}")
        assert done.stdout.splitlines()[-1:] == ["[True, True, True, 0, False]"], done.stdout + done.stderr
    finally:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.exe() == str(program):
                    process.kill()
        shutil.rmtree(home)
