"""What a keeper does at a single look at its state folder; its life as a process is in the system tests."""

import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import psutil
import pytest

from kanaria.stack.keeper import BEAT_S, CALM_BEAT_S, Keeper
from kanaria.stack.processes import Identity
from kanaria.stack.supervision import ProcessFiles, ProcessState, Program, Supervisor
from tests.support.absence import leave_out
from tests.support.processes import SLEEPER, until

NOBODY = 65534


@pytest.fixture
def home() -> Iterator[Path]:
    """Where anybody may enter; the folders of pytest are closed."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "logs").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def supervisor(home: Path) -> Iterator[Supervisor]:
    made = Supervisor(home, home / "logs")
    yield made
    made.shutdown()


@contextmanager
def keeping(home: Path) -> Iterator[Keeper]:
    """A keeper in this process."""
    keeper = Keeper(home, home / "logs")
    try:
        keeper.adopt()
        keeper.beat()
        yield keeper
    finally:
        Supervisor(home, home / "logs").shutdown()
        for care in keeper._cares.values():
            if care.child:
                care.child.wait()
        keeper._forked.close()
        keeper._changes.close()
        keeper._ends.of(())


@pytest.fixture
def keeper(home: Path, supervisor: Supervisor) -> Iterator[Keeper]:
    """Of two programs that run."""
    for name in ("one", "two"):
        supervisor.add(Program(name, SLEEPER))
    with keeping(home) as made:
        yield made


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """Let nobody in, nor this process where it is root."""
    before = folder.stat().st_mode
    folder.chmod(0)
    if not os.getuid():
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if not os.getuid():
            os.seteuid(0)
        folder.chmod(before)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Only root can be somebody else for a while."""
    if os.getuid():
        leave_out("only root can be another user for a while")
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@contextmanager
def no_file_to_open() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def beat_for(keeper: Keeper, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        keeper.beat()
        time.sleep(BEAT_S / 4)


def pids(supervisor: Supervisor) -> dict[str, int]:
    return {name: info.pid for name in ("one", "two") if (info := supervisor.info(name))}


def test_a_folder_whose_files_are_removed_one_by_one_ends_nothing(
    keeper: Keeper, home: Path, supervisor: Supervisor
) -> None:
    """As `mv` does between two disks: a look in between found a folder that did not list all, and ended the rest."""
    before, programs = pids(supervisor), home / "programs"
    copy = shutil.copytree(programs, home / "copy")
    (programs / "one.json").unlink()
    keeper.beat()
    shutil.rmtree(programs)
    beat_for(keeper, BEAT_S * 3)
    copy.rename(programs)
    beat_for(keeper, BEAT_S * 3)
    assert pids(supervisor) == before


def test_what_is_not_listed_any_more_ends_at_the_second_look(keeper: Keeper, supervisor: Supervisor) -> None:
    """The first asks for another one soon, instead of waiting for something to happen."""
    until(lambda: keeper.pause()[0] == CALM_BEAT_S)
    supervisor.stop("one")
    keeper.beat()
    assert keeper.pause()[0] == BEAT_S
    time.sleep(BEAT_S)
    keeper.beat()
    until(lambda: keeper.beat() or supervisor.info("one") is None)
    assert pids(supervisor).keys() == {"two"}


@pytest.mark.parametrize("part", ["programs", "."])
def test_a_folder_that_cannot_be_read_ends_nothing(
    keeper: Keeper, home: Path, supervisor: Supervisor, part: str
) -> None:
    """Where its list could not be read, nothing seemed to be wanted; where nobody could enter, the keeper ended."""
    before = pids(supervisor)
    with closed(home / part):
        beat_for(keeper, BEAT_S * 3)
    beat_for(keeper, BEAT_S * 3)
    assert pids(supervisor) == before


def test_a_keeper_that_fails_waits_before_it_tries_again(home: Path, supervisor: Supervisor) -> None:
    """Without a file to open it could not see to a process that had ended, whose file woke it again at once."""
    with subprocess.Popen(SLEEPER, start_new_session=True) as process:
        found = Identity.of(process.pid)
        assert found
        supervisor.add(Program("one", SLEEPER))
        ProcessFiles(home).write_state("one", ProcessState(pid=found.pid, started_s=found.started_s, starts=1))
        with keeping(home) as keeper:
            assert len(until(lambda: keeper.pause()[1])) == 1
            process.kill()
            process.wait()
            with no_file_to_open():
                keeper.beat()
            assert keeper.pause() == (BEAT_S, ())


@pytest.mark.parametrize("is_own", [True, False])
def test_what_took_no_signal_is_not_called_suspended(home: Path, supervisor: Supervisor, is_own: bool) -> None:
    """It said so of processes of somebody else, which went on."""
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(SLEEPER, start_new_session=True))
        stack.callback(process.kill)
        found = Identity.of(process.pid)
        assert found
        ProcessFiles(home).write_state("one", ProcessState(pid=found.pid, started_s=found.started_s, starts=1))
        with nullcontext() if is_own else as_nobody():
            assert [supervisor.suspend("one") for _ in range(2)] == [is_own] * 2
        assert (psutil.Process(process.pid).status() == psutil.STATUS_STOPPED) is is_own
