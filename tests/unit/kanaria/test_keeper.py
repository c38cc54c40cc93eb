"""What a keeper does in one tick on its state folder. The system tests cover its life as a process."""

import errno
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import psutil
import pytest

from kanaria.stack import keeper_loop
from kanaria.stack.identity import Identity
from kanaria.stack.keeper_loop import IDLE_TICK_S, TICK_S, Keeper
from kanaria.stack.locks import Lock, locked
from kanaria.stack.process_state import ProcessState
from kanaria.stack.processes import marks
from kanaria.stack.supervision import ProcessFiles, Program, Supervisor
from tests.support.absence import leave_out
from tests.support.children import started
from tests.support.no_files import no_file_to_open
from tests.support.processes import SLEEPER, until

NOBODY = 65534


@pytest.fixture
def home() -> Iterator[Path]:
    """A state folder that other users can enter; the folders of pytest are closed."""
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
        keeper.tick()
        yield keeper
    finally:
        Supervisor(home, home / "logs").shutdown()
        for record in keeper._records.values():
            if record.child:
                record.child.wait()
        keeper._forked.close()
        keeper._changes.close()
        keeper._ends.of(())


@pytest.fixture
def keeper(home: Path, supervisor: Supervisor) -> Iterator[Keeper]:
    """A keeper of two running programs."""
    for name in ("one", "two"):
        supervisor.add(Program(name, SLEEPER))
    with keeping(home) as made:
        yield made


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """Close the folder to everybody; root becomes another user meanwhile."""
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
    """Run as another user for a while, which only root can do."""
    if os.getuid():
        leave_out("only root can run as another user for a while")
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@contextmanager
def adopted(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that an earlier keeper started as `one`."""
    environment = {**os.environ, **marks(home, "one")}
    with started(SLEEPER, start_new_session=True, env=environment) as process:
        found = Identity.of(process.pid)
        assert found
        ProcessFiles(home).write_program(Program("one", SLEEPER))
        ProcessFiles(home).write_state("one", ProcessState(pid=found.pid, started_s=found.started_s, starts=1))
        yield process


def tick_for(keeper: Keeper, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        keeper.tick()
        time.sleep(TICK_S / 4)


def pids(supervisor: Supervisor) -> dict[str, int]:
    return {name: info.pid for name in ("one", "two") if (info := supervisor.info(name))}


def test_removing_the_program_files_one_by_one_stops_no_process(
    keeper: Keeper, home: Path, supervisor: Supervisor
) -> None:
    """`mv` between two disks does this. A tick in between saw an incomplete folder and stopped the other processes."""
    before, programs = pids(supervisor), home / "programs"
    copy = shutil.copytree(programs, home / "copy")
    (programs / "one.json").unlink()
    keeper.tick()
    shutil.rmtree(programs)
    tick_for(keeper, TICK_S * 3)
    copy.rename(programs)
    tick_for(keeper, TICK_S * 3)
    assert pids(supervisor) == before


def test_an_unlisted_process_is_stopped_at_the_second_look(keeper: Keeper, supervisor: Supervisor) -> None:
    """The first look asks for another one soon instead of waiting for an event."""
    until(lambda: keeper.pause()[0] == IDLE_TICK_S)
    supervisor.stop("one")
    keeper.tick()
    assert keeper.pause()[0] == TICK_S
    time.sleep(TICK_S)
    keeper.tick()
    until(lambda: keeper.tick() or supervisor.info("one") is None)
    assert pids(supervisor).keys() == {"two"}


@pytest.mark.parametrize("part", ["programs", "."])
def test_an_unreadable_folder_stops_no_process(keeper: Keeper, home: Path, supervisor: Supervisor, part: str) -> None:
    """When the list could not be read, no process seemed wanted.

    When the folder could not be entered, the keeper ended.
    """
    before = pids(supervisor)
    with closed(home / part):
        tick_for(keeper, TICK_S * 3)
    tick_for(keeper, TICK_S * 3)
    assert pids(supervisor) == before


def test_a_failed_tick_waits_before_the_next(home: Path, supervisor: Supervisor) -> None:
    """Out of file descriptors, the keeper could not handle a process that had ended.

    The file of that process woke it at once, again and again.
    """
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
                keeper.tick()
            assert keeper.pause() == (TICK_S, ())


def test_the_reason_for_a_failed_start_is_logged_before_the_end_is_recorded(
    home: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that saw the end first reported a failed start without a reason."""
    was_said: list[bool] = []
    write, log = ProcessFiles.write_state, home / "logs" / "one.log"

    def write_state(files: ProcessFiles, name: str, state: ProcessState) -> None:
        if state.exits:
            was_said.append(log.exists() and "No such file or directory" in log.read_text())
        write(files, name, state)

    monkeypatch.setattr(ProcessFiles, "write_state", write_state)
    supervisor.add(Program("one", ("no-such-program",)))
    with keeping(home):
        assert was_said == [True]


@pytest.mark.parametrize("is_own", [True, False])
def test_a_process_that_could_not_be_signalled_is_not_called_suspended(
    home: Path, supervisor: Supervisor, is_own: bool
) -> None:
    """It was called suspended although it belonged to another user and kept running."""
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(SLEEPER, start_new_session=True))
        stack.callback(process.kill)
        found = Identity.of(process.pid)
        assert found
        ProcessFiles(home).write_state("one", ProcessState(pid=found.pid, started_s=found.started_s, starts=1))
        with nullcontext() if is_own else as_nobody():
            assert [supervisor.suspend("one") for _ in range(2)] == [is_own] * 2
        until(lambda: (psutil.Process(process.pid).status() == psutil.STATUS_STOPPED) is is_own)


def test_a_process_that_cannot_be_inspected_is_not_treated_as_ended(home: Path, supervisor: Supervisor) -> None:
    """Out of file descriptors, the keeper counted an exit with each tick.

    When it could look again within the same tick, it stopped the living process.
    """
    with adopted(home) as process, keeping(home) as keeper:
        with no_file_to_open():
            for _ in range(5):
                keeper.tick()
        assert keeper._records["one"].state.exits == 0
        tick_for(keeper, TICK_S * 3)
        info = supervisor.info("one")
        assert info
        assert (process.poll(), info.pid, info.exits, info.has_crashed) == (None, process.pid, 0, False)


def test_a_process_that_ends_while_files_run_out_counts_one_exit(keeper: Keeper, supervisor: Supervisor) -> None:
    """The search for its leftover processes failed in every tick, and each failure counted another exit."""
    record = keeper._records["one"]
    assert record.child
    with no_file_to_open():
        record.child.kill()
        record.child.wait()
        for _ in range(5):
            keeper.tick()
    info = until(lambda: keeper.tick() or ((seen := supervisor.info("one")) and seen.pid and seen))
    assert (info.exits, info.has_crashed) == (1, True)


def test_a_keeper_that_cannot_look_does_not_start(home: Path, supervisor: Supervisor) -> None:
    """A keeper that does not know what runs would start everything a second time."""
    with adopted(home), keeping(home) as keeper:
        another = Keeper(home, home / "logs")
        with no_file_to_open(), pytest.raises(OSError, match="Too many open files"):
            another.adopt()
        another._forked.close()
        assert pids(supervisor) == {"one": keeper._records["one"].state.pid}


def test_an_unreadable_list_is_not_an_empty_list(home: Path, keeper: Keeper, supervisor: Supervisor) -> None:
    """`kanaria down` reported that nothing ran.

    The command that stays running under systemd concluded that the stack had been taken down.
    """
    del keeper
    with no_file_to_open(), pytest.raises(OSError, match="Too many open files"):
        Supervisor(home, home / "logs").names()
    with no_file_to_open(), pytest.raises(OSError, match="Too many open files"):
        assert supervisor.info("one").is_alive
    assert (supervisor.names(), supervisor.is_away) == (("one", "two"), False)
    (home / "programs").rename(home / "elsewhere")
    assert (supervisor.names(), supervisor.is_away) == ((), True)
    (home / "elsewhere").rename(home / "programs")


@pytest.mark.parametrize("is_closed", [True, False])
def test_unreadable_logs_do_not_end_the_keeper(keeper: Keeper, home: Path, *, is_closed: bool) -> None:
    """The keeper ended, as did each new one that the controller started every second."""
    keeper._logs._due_s = 0.0
    with closed(home) if is_closed else no_file_to_open():
        keeper.tick()
    assert keeper._logs._due_s
    keeper.tick()


@pytest.mark.parametrize("trouble", ["note", "away", "copy"])
def test_a_keeper_continues_in_a_copied_folder_after_a_first_failure(
    home: Path, keeper: Keeper, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """It had the copy's lock, but permanently took the folder for another stack's and started and stopped nothing."""
    monkeypatch.setattr(keeper_loop, "FOLDER_SETTLED_AFTER_S", 0.0)
    sign, take_again, tries = Lock.sign, Lock.take_again, list[Lock]()
    before, between = home.with_suffix(".before"), home.with_suffix(".between")

    def cannot_at_first(lock: Lock) -> None:
        tries.append(lock)
        if trouble == "note" and len(tries) == 1:
            raise OSError(errno.ENFILE, "Too many open files in system")
        sign(lock)

    def is_moved(lock: Lock) -> bool:
        if trouble == "copy":
            copied(home, between)
        is_taken = take_again(lock)
        if trouble == "away":
            home.rename(between)
        return is_taken

    with locked(home / "keeper.lock", doing="kanaria upgrade", wait_s=0.0) as lock:
        monkeypatch.setattr(Lock, "sign", cannot_at_first)
        monkeypatch.setattr(Lock, "take_again", is_moved)
        copied(home, before)
        supervisor.stop("one")
        assert keeper.keep_lock(lock)
        if trouble == "away":
            between.rename(home)
        until(lambda: keeper.keep_lock(lock) and (keeper.tick() or supervisor.info("one") is None))
        assert (len(tries), pids(supervisor).keys()) == (2 if trouble == "note" else 1, {"two"})
    for folder in home.parent.glob(f"{home.name}.be*"):
        shutil.rmtree(folder)


def copied(home: Path, before: Path) -> None:
    """Replace the folder by a copy, as `mv` to another disk and back does."""
    copy = shutil.copytree(home, home.with_suffix(".copy"))
    home.rename(before)
    copy.rename(home)
