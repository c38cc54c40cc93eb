"""Real processes under a real keeper that is killed at the worst moments."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from kanaria.errors import StackError
from kanaria.stack import log_files
from kanaria.stack.identity import Identity
from kanaria.stack.locks import locked
from kanaria.stack.process_state import ProcessState
from kanaria.stack.processes import KEPT_IN, marks
from kanaria.stack.supervision import ProcessFiles, Program
from tests.support.processes import SLEEPER, STUBBORN, WITH_WORKER, Kept, until
from tests.support.small_disk import SmallDisk, read_only

NASTY = "a b#c %s 'q' \"Q\" ;$HOME"  # a state folder may have such a name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """A state folder with a difficult name."""
    made = Kept(tmp_path_factory.mktemp("state") / NASTY)
    yield made
    made.supervisor.shutdown()
    assert made.everything() == []


@pytest.fixture
def kept(folder: Kept) -> Iterator[Kept]:
    """That folder with a keeper; processes that run there are stopped after the test."""
    folder.supervisor.start()
    yield folder
    folder.clear()


def test_a_program_gets_its_arguments_and_variables_unchanged(kept: Kept) -> None:
    """Free text passes through no configuration language: quotes, percent signs, line ends and non-ASCII."""
    free = 'can\'t tell; 50%s #1 "x" ${HOME} \n zwei\u2028Zeilen é'
    printing = "import os, sys; print(repr((sys.argv[1], os.environ['FREE'], os.getcwd()))); sys.stdout.flush()"
    where = kept.home / "where it runs #1"
    where.mkdir()
    command = (sys.executable, "-c", f"{printing}; import time; time.sleep(600)", free)
    kept.run("digits@v1", command, environment={"FREE": free}, folder=str(where))
    log = kept.home / "logs" / "digits@v1.log"
    assert until(lambda: log.read_text().strip()) == repr((free, free, str(where)))


def test_a_process_that_dies_is_restarted_and_counts_as_crashed(kept: Kept) -> None:
    """The new process has the same name and log."""
    first = kept.run("one")
    assert kept.info("one").has_crashed is False
    os.kill(first, signal.SIGKILL)
    second = kept.pid("one", other_than=first)
    info = kept.info("one")
    assert (info.pid, info.is_alive, info.has_crashed) == (second, True, True)


def test_a_killed_keeper_stops_no_process_and_the_next_one_takes_over(kept: Kept) -> None:
    """The same process goes on and its state stays readable; the next keeper keeps it as before."""
    pid = kept.run("one")
    kept.kill_keeper()
    info = kept.info("one")
    assert (info.pid, info.is_alive, info.has_crashed) == (pid, True, False)
    kept.supervisor.start()
    assert kept.pid("one") == pid
    os.kill(pid, signal.SIGKILL)
    assert kept.pid("one", other_than=pid)
    assert kept.info("one").has_crashed


def test_a_process_that_dies_without_a_keeper_has_crashed(kept: Kept) -> None:
    """This holds before and after a new keeper starts: another process still ran, so the machine was not restarted."""
    kept.run("other")
    pid = kept.run("one")
    kept.kill_keeper()
    os.kill(pid, signal.SIGKILL)
    info = until(lambda: (seen := kept.info("one")) and not seen.is_alive and seen)
    assert info.has_crashed
    kept.supervisor.start()
    assert kept.pid("one", other_than=pid)
    assert kept.info("one").has_crashed


def test_processes_that_ended_with_the_machine_have_not_crashed(kept: Kept) -> None:
    """All processes are killed at once and the files stay: a later keeper starts them, and none counts as crashed."""
    pids = [kept.run("one"), kept.run("two")]
    for pid in (kept.keeper, *pids):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not kept.everything() and not kept.supervisor.is_running)  # an ending process has no marks
    kept.supervisor.start()
    assert kept.pid("one") not in pids
    assert kept.pid("two") not in pids
    assert not kept.info("one").has_crashed
    assert not kept.info("two").has_crashed


def test_a_started_process_without_a_record_is_found(kept: Kept) -> None:
    """A keeper was killed between start and record: the next one takes the process over and starts no second."""
    kept.kill_keeper()
    environment = {**os.environ, **marks(kept.home, "one")}
    process = subprocess.Popen(WITH_WORKER, env=environment, start_new_session=True)
    until(lambda: len(kept.everything()) == 2)
    ProcessFiles(kept.home).write_program(Program("one", WITH_WORKER))
    kept.supervisor.start()
    assert kept.pid("one") == process.pid
    assert len(kept.everything()) == 3  # the process, its worker and the keeper
    kept.supervisor.stop("one")
    process.wait(60)
    until(lambda: len(kept.everything()) == 1)


def test_another_process_with_the_same_pid_is_left_alone(kept: Kept) -> None:
    """Its start time differs: it is not taken for the program, and not stopped with it."""
    kept.kill_keeper()
    foreign = subprocess.Popen(SLEEPER, start_new_session=True)
    try:
        found = Identity.of(foreign.pid)
        files = ProcessFiles(kept.home)
        files.write_state("one", ProcessState(pid=foreign.pid, started_s=found.started_s - 100, starts=1))
        files.write_program(Program("one", SLEEPER))
        kept.supervisor.start()
        assert kept.pid("one") != foreign.pid
        kept.supervisor.shutdown()
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


@pytest.mark.parametrize("content", ["", "{", '{"pid": "x"}', "\x00" * 40], ids=["empty", "cut", "wrong", "zeros"])
def test_an_unreadable_state_file_is_treated_as_missing(kept: Kept, content: str) -> None:
    """The process is found by its mark and goes on; the file is rewritten."""
    pid = kept.run("one")
    kept.kill_keeper()
    path = kept.home / "processes" / "one.json"
    path.write_text(content)
    kept.supervisor.start()
    assert kept.pid("one") == pid
    assert ProcessState.model_validate_json(path.read_text()).pid == pid


def test_an_unreadable_program_file_stops_nothing(kept: Kept) -> None:
    """The process goes on, and the file is rewritten when the program is added again."""
    pid = kept.run("one")
    (kept.home / "programs" / "one.json").write_text("{")
    kept.run("other")  # the keeper has checked everything once more
    assert kept.pid("one") == pid
    assert kept.supervisor.program("one") is None
    kept.supervisor.add(Program("one", SLEEPER))
    assert kept.supervisor.program("one").command == SLEEPER
    assert kept.pid("one") == pid


def test_stopping_a_program_stops_workers_that_left_its_group(kept: Kept) -> None:
    """No process of the program is left, and its record is removed."""
    kept.run("one", WITH_WORKER)
    until(lambda: len(kept.everything()) == 3)
    kept.supervisor.stop("one")
    until(lambda: kept.info("one") is None)
    assert len(kept.everything()) == 1  # the keeper


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["hung", "parent dead"])
def test_stopping_a_program_stops_a_hung_worker_and_an_orphan(kept: Kept, number: signal.Signals) -> None:
    """SIGTERM does not stop the hung one; the other has no parent."""
    pid = kept.run("one", WITH_WORKER, stop_wait_s=1.0)
    worker = until(lambda: psutil.Process(pid).children())[0]
    os.kill(worker.pid if number is signal.SIGSTOP else pid, number)
    if number is signal.SIGKILL:
        kept.pid("one", other_than=pid)
        until(lambda: not worker.is_running())  # it was stopped before its successor was started
    kept.supervisor.stop("one")
    until(lambda: kept.info("one") is None)
    assert len(kept.everything()) == 1


def test_a_program_that_ignores_sigterm_is_killed_after_its_time_limit(kept: Kept) -> None:
    """Both the keeper and `shutdown` do this."""
    for name in ("one", "two"):
        kept.run(name, STUBBORN, stop_wait_s=0.5)
        until(lambda name=name: "deaf" in (kept.home / "logs" / f"{name}.log").read_text())
    kept.supervisor.stop("one")
    until(lambda: kept.info("one") is None)
    kept.supervisor.shutdown()
    assert kept.everything() == []


def test_all_orphans_are_stopped_without_a_keeper(kept: Kept) -> None:
    """The keeper is dead, one worker hangs and one state file is missing: `shutdown` still leaves no process."""
    pid = kept.run("one", WITH_WORKER, stop_wait_s=1.0)
    kept.run("two")
    worker = until(lambda: psutil.Process(pid).children())[0]
    kept.kill_keeper()
    os.kill(worker.pid, signal.SIGSTOP)
    (kept.home / "processes" / "two.json").unlink()
    assert set(kept.supervisor.alive()) == {"one", "two"}
    kept.supervisor.shutdown()
    assert kept.everything() == []
    assert kept.supervisor.names() == ()


def test_a_hung_keeper_does_not_prevent_a_shutdown(kept: Kept) -> None:
    """It is killed, and its programs are stopped for it."""
    kept.run("one")
    os.kill(kept.keeper, signal.SIGSTOP)
    kept.supervisor.shutdown()
    assert kept.everything() == []


def test_a_state_folder_has_only_one_keeper(kept: Kept) -> None:
    """Of two that are started at once, one remains, and every program has one process."""
    kept.run("one")
    kept.kill_keeper()
    command = [sys.executable, "-m", "kanaria.stack.keeper", str(kept.home), str(kept.home / "logs")]
    environment = {**os.environ, **marks(kept.home, "keeper")}
    both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    assert "another command works in this state folder" in "".join(outputs)
    assert "Traceback" not in (kept.home / "logs" / "keeper.log").read_text()
    assert len(kept.everything()) == 2


def test_two_state_folders_are_independent(kept: Kept, tmp_path: Path) -> None:
    """Stopping one leaves the other as it is."""
    other = Kept(tmp_path / "other")
    other.supervisor.start()
    try:
        pid, others = kept.run("one"), other.run("one")
        other.supervisor.shutdown()
        assert Identity.of(others) is None
        assert kept.pid("one") == pid
    finally:
        other.supervisor.shutdown()


def test_a_program_that_cannot_be_started_is_explained_and_blocks_no_other(kept: Kept) -> None:
    """Its log has the reason without its variables; it counts as crashed and is tried again."""
    kept.supervisor.add(Program("lost", ("no-such-program",), {"SECRET": "hush"}))
    kept.supervisor.add(Program("huge", ("true",), {"SECRET": "hush" * 100_000}))
    kept.supervisor.add(Program("nowhere", SLEEPER, {"SECRET": "hush"}, folder=str(kept.home / "gone")))
    kept.run("one")
    reasons = {"lost": "No such file", "huge": "Argument list too long", "nowhere": "No such file"}
    for name, reason in reasons.items():
        info = until(lambda name=name: (seen := kept.info(name)) and seen.has_crashed and seen)
        assert not info.is_alive
        assert reason in until(info.log.read_text)
    logs = "".join(path.read_text() for path in (kept.home / "logs").iterdir())
    assert "hush" not in logs + repr(kept.supervisor.program("lost"))


def test_only_the_owner_can_read_a_programs_variables(kept: Kept) -> None:
    """They may be secret."""
    kept.run("one", environment={"TOKEN": "hush"})
    assert stat.S_IMODE((kept.home / "programs" / "one.json").stat().st_mode) == 0o600


def test_a_log_that_grows_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer continues in the same file; the two newest copies are kept."""
    monkeypatch.setattr(log_files, "LARGEST_BYTES", 10)
    path = tmp_path / "one.log"
    with log_files.LogFiles(tmp_path).open("one") as writer:
        for number in range(4):
            writer.write(f"text number {number}".encode())
            writer.flush()
            log_files.LogFiles(tmp_path).rotate()
        writer.write(b"last")
    assert [file.read_text() for file in sorted(tmp_path.iterdir())] == ["last", "text number 3", "text number 2"]
    assert path.read_text() == "last"


def test_a_file_that_is_no_longer_read_is_emptied(kept: Kept) -> None:
    """A program appends to it for a reader that is gone: it grew until the disk was full."""
    path = kept.home / "values.jsonl"
    path.touch()
    kept.run("one", droppable=(str(path),))
    os.truncate(path, log_files.LARGEST_BYTES + 1)
    until(lambda: path.stat().st_size == 0)
    path.write_text("a few lines")
    kept.kill_keeper()
    kept.supervisor.start()
    assert kept.pid("one")
    assert path.read_text() == "a few lines"


def test_a_full_disk_does_not_prevent_a_restart(kept: Kept, small_disk: SmallDisk) -> None:
    """Neither state nor log can be written: the process is still started, and found by its mark."""
    home = small_disk.folder / "state"
    full = Kept(home)
    full.supervisor.start()
    try:
        pid = full.run("one")
        small_disk.fill()
        os.kill(pid, signal.SIGKILL)
        again = until(lambda: [process for process in full.everything("one") if process.pid != pid])
        small_disk.free()
        full.kill_keeper()
        full.supervisor.start()
        assert full.pid("one") == again[0].pid
    finally:
        full.supervisor.shutdown()


def test_a_read_only_disk_does_not_prevent_a_shutdown(tmp_path: Path) -> None:
    """The kernel makes a faulty disk read-only. Once it is writable, the next command removes the records."""
    kept = Kept(tmp_path / "state")
    kept.supervisor.start()
    kept.run("one")
    kept.run("two", STUBBORN, stop_wait_s=0.5)
    try:
        with read_only(kept.home), pytest.raises(StackError, match="everything is stopped, but") as caught:
            kept.supervisor.shutdown()
        assert (kept.everything(), "Read-only" in caught.value.saw) == ([], True)
        assert kept.supervisor.names() == ("one", "two")
    finally:
        kept.supervisor.shutdown()
    assert (kept.supervisor.names(), kept.supervisor.is_running) == ((), False)


def test_a_state_folder_that_returns_from_another_disk_keeps_its_keeper(tmp_path: Path, small_disk: SmallDisk) -> None:
    """It and its lock are copies: changes had no effect any more, and a second keeper could start."""
    kept, elsewhere = Kept(tmp_path / "state"), small_disk.folder / "state"
    kept.supervisor.start()
    try:
        (one, _), keeper = (kept.run("one"), kept.run("two")), kept.keeper
        shutil.move(kept.home, elsewhere)
        shutil.move(elsewhere, kept.home)
        kept.supervisor.stop("two")
        assert kept.run("three")
        until(lambda: kept.info("two") is None)
        assert (kept.keeper, kept.pid("one")) == (keeper, one)
        with pytest.raises(StackError, match="another command works in this state folder"), _lock_of(kept):
            pass
    finally:
        kept.supervisor.shutdown()
    assert kept.everything() == []


def test_a_folder_that_returns_file_by_file_stops_nothing(tmp_path: Path, small_disk: SmallDisk) -> None:
    """Programs are listed before all their files are back; a keeper that is started meanwhile is refused."""
    kept, elsewhere = Kept(tmp_path / "state"), small_disk.folder / "state"
    kept.supervisor.start()
    try:
        pids = {name: kept.run(name) for name in ("one", "two")}
        shutil.move(kept.home, elsewhere)
        (kept.home / "logs").mkdir(parents=True)
        for part in ("processes/one.json", "programs/one.json"):
            (kept.home / part).parent.mkdir()
            shutil.copy2(elsewhere / part, kept.home / part)
        with pytest.raises(StackError, match="keeper of the processes did not start") as caught:
            kept.supervisor.start()
        assert "another keeper takes care of these processes" in caught.value.saw
        shutil.copytree(elsewhere, kept.home, dirs_exist_ok=True)
        assert kept.run("three")
        assert {name: kept.pid(name) for name in pids} == pids
    finally:
        kept.supervisor.shutdown()
    assert kept.everything() == []


def test_a_keeper_recreates_its_lock_file(kept: Kept) -> None:
    """Another keeper could lock the new file, and both restarted what ended."""
    pid, keeper = kept.run("one"), kept.keeper
    (kept.home / "keeper.lock").unlink()
    until(lambda: kept.supervisor.is_running)
    assert (kept.keeper, kept.pid("one")) == (keeper, pid)
    with _lock_of(kept, "new.lock"):  # another command was quicker and holds the lock
        (kept.home / "new.lock").rename(kept.home / "keeper.lock")
        until(lambda: not psutil.pid_exists(keeper))
    kept.supervisor.start()
    assert kept.pid("one") == pid


def _lock_of(kept: Kept, name: str = "keeper.lock") -> AbstractContextManager[object]:
    return locked(kept.home / name, doing="kanaria upgrade", wait_s=0.0)


def test_a_state_folder_that_is_moved_away_stops_nothing(tmp_path: Path) -> None:
    """Without its folder no program seemed wanted. A process that died is restarted once the folder is back."""
    kept, elsewhere = Kept(tmp_path / "state"), tmp_path / "elsewhere"
    kept.supervisor.start()
    try:
        stays, dies, dies_later = (kept.run(name) for name in ("stays", "dies", "dies later"))
        kept.home.rename(elsewhere)
        os.kill(dies, signal.SIGKILL)
        until(lambda: '"exited"' in (elsewhere / "logs" / "keeper.log").read_text())
        assert not kept.home.exists()
        (kept.home / "programs").mkdir(parents=True)  # as a command that still writes there creates it
        os.kill(dies_later, signal.SIGKILL)
        until(lambda: (elsewhere / "logs" / "keeper.log").read_text().count('"exited"') == 2)
        kept.home.rename(tmp_path / "anew")
        elsewhere.rename(kept.home)
        assert kept.pid("dies", other_than=dies)
        assert kept.pid("dies later", other_than=dies_later)
        assert kept.pid("stays") == stays
    finally:
        kept.supervisor.shutdown()


def test_a_command_never_stops_its_own_shell(kept: Kept) -> None:
    """An inherited mark does not make a command stop itself or its caller."""
    ending = (
        "from pathlib import Path; import sys; from kanaria.stack.supervision import Supervisor\n"
        "home = Path(sys.argv[1]); Supervisor(home, home / 'logs').shutdown(); print('still here')"
    )
    environment = {**os.environ, **marks(kept.home, "one")}
    assert environment[KEPT_IN] == str(kept.home.resolve())
    script = f'"{sys.executable}" -c "$0" "$1"; echo and so is its shell'
    done = subprocess.run(
        ["sh", "-c", script, ending, str(kept.home)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["still here", "and so is its shell"]
