"""What a keeper does at a single look at its state folder; its life as a process is in the system tests."""

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
def adopted(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that an earlier keeper has started as `one`."""
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


def test_a_folder_whose_files_are_removed_one_by_one_ends_nothing(
    keeper: Keeper, home: Path, supervisor: Supervisor
) -> None:
    """As `mv` does between two disks: a look in between found a folder that did not list all, and ended the rest."""
    before, programs = pids(supervisor), home / "programs"
    copy = shutil.copytree(programs, home / "copy")
    (programs / "one.json").unlink()
    keeper.tick()
    shutil.rmtree(programs)
    tick_for(keeper, TICK_S * 3)
    copy.rename(programs)
    tick_for(keeper, TICK_S * 3)
    assert pids(supervisor) == before


def test_what_is_not_listed_any_more_ends_at_the_second_look(keeper: Keeper, supervisor: Supervisor) -> None:
    """The first asks for another one soon, instead of waiting for something to happen."""
    until(lambda: keeper.pause()[0] == IDLE_TICK_S)
    supervisor.stop("one")
    keeper.tick()
    assert keeper.pause()[0] == TICK_S
    time.sleep(TICK_S)
    keeper.tick()
    until(lambda: keeper.tick() or supervisor.info("one") is None)
    assert pids(supervisor).keys() == {"two"}


@pytest.mark.parametrize("part", ["programs", "."])
def test_a_folder_that_cannot_be_read_ends_nothing(
    keeper: Keeper, home: Path, supervisor: Supervisor, part: str
) -> None:
    """Where its list could not be read, nothing seemed to be wanted; where nobody could enter, the keeper ended."""
    before = pids(supervisor)
    with closed(home / part):
        tick_for(keeper, TICK_S * 3)
    tick_for(keeper, TICK_S * 3)
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
                keeper.tick()
            assert keeper.pause() == (TICK_S, ())


def test_why_a_program_could_not_be_started_is_in_its_log_before_it_counts_as_ended(
    home: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever saw the end first reported a version that had not started without a reason."""
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
        until(lambda: (psutil.Process(process.pid).status() == psutil.STATUS_STOPPED) is is_own)


def test_a_keeper_without_a_file_to_open_takes_nothing_for_ended(home: Path, supervisor: Supervisor) -> None:
    """It counted an exit with each beat. Where it could look again within the beat, it ended the living process."""
    with adopted(home) as process, keeping(home) as keeper:
        with no_file_to_open():
            for _ in range(5):
                keeper.tick()
        assert keeper._records["one"].state.exits == 0
        tick_for(keeper, TICK_S * 3)
        info = supervisor.info("one")
        assert info
        assert (process.poll(), info.pid, info.exits, info.has_crashed) == (None, process.pid, 0, False)


def test_what_ends_while_no_file_can_be_opened_has_ended_once(keeper: Keeper, supervisor: Supervisor) -> None:
    """The search for what it had left behind failed with each beat, and each counted another exit."""
    record = keeper._records["one"]
    assert record.child
    with no_file_to_open():
        record.child.kill()
        record.child.wait()
        for _ in range(5):
            keeper.tick()
    info = until(lambda: keeper.tick() or ((seen := supervisor.info("one")) and seen.pid and seen))
    assert (info.exits, info.has_crashed) == (1, True)


def test_a_keeper_that_cannot_look_does_not_begin(home: Path, supervisor: Supervisor) -> None:
    """Whoever forgets what runs starts all of it once more."""
    with adopted(home), keeping(home) as keeper:
        another = Keeper(home, home / "logs")
        with no_file_to_open(), pytest.raises(OSError, match="Too many open files"):
            another.adopt()
        another._forked.close()
        assert pids(supervisor) == {"one": keeper._records["one"].state.pid}


def test_a_list_that_cannot_be_read_is_not_empty(home: Path, keeper: Keeper, supervisor: Supervisor) -> None:
    """`kanaria down` said that nothing ran, and the command that stays under systemd took the stack for taken down."""
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
def test_logs_that_cannot_be_looked_at_end_no_beat(keeper: Keeper, home: Path, *, is_closed: bool) -> None:
    """The keeper ended, and the next one, and each that the controller started every second."""
    keeper._logs._due_s = 0.0
    with closed(home) if is_closed else no_file_to_open():
        keeper.tick()
    assert keeper._logs._due_s
    keeper.tick()


@pytest.mark.parametrize("trouble", ["note", "away", "copy"])
def test_a_keeper_goes_on_in_a_copy_that_it_did_not_take_at_once(
    home: Path, keeper: Keeper, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """It had the copy's lock, took the folder for another stack's for good, and started and ended nothing."""
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
    """Put a copy into its place, as `mv` to another disk and back does."""
    copy = shutil.copytree(home, home.with_suffix(".copy"))
    home.rename(before)
    copy.rename(home)
