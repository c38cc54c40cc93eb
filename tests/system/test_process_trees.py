"""Which process is meant, with and without /proc."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from kanaria.stack import processes
from kanaria.stack.processes import Identity, belongings, leader
from tests.support.processes import SLEEPER, WITH_WORKER, until


@pytest.fixture(params=["linux", "darwin"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Start times from /proc, and from psutil alone as on a Mac."""
    if request.param == "darwin":
        monkeypatch.setattr(processes, "start_of", processes._start_by_psutil)
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
    """One that ended and was not waited for is dead; so is one with another start time; so is number 0."""
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
    """Setting the clock moves the time of the boot that psutil counts from."""
    found = Identity.of(sleeper.pid)
    assert found is not None
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: 12345.0)
    assert Identity.of(sleeper.pid) == found
    assert found.is_alive


def test_a_reused_number_brings_no_foreign_process(sleeper: subprocess.Popen[bytes]) -> None:
    """The session of another process that has the number now is not taken for the program's."""
    found = Identity.of(sleeper.pid)
    assert found is not None
    assert [process.pid for process in belongings(found, ())] == [sleeper.pid]
    assert belongings(Identity(found.pid, found.started_s - 50), ()) == []


def test_workers_without_a_parent_still_belong_to_a_program() -> None:
    """Found by the session of the parent that is gone; the worker of the worker's session by its mark."""
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


def test_the_leader_is_the_first_of_a_program_that_has_a_session() -> None:
    """Its workers may have sessions of their own, which began later."""
    parent = subprocess.Popen(WITH_WORKER, start_new_session=True)
    try:
        (worker,) = until(lambda: psutil.Process(parent.pid).children())
        until(lambda: os.getsid(worker.pid) == worker.pid)
        assert leader([worker, psutil.Process(parent.pid)]) == Identity.of(parent.pid)
        worker.kill()
    finally:
        parent.kill()
        parent.wait()
