"""A process that is killed loses no recorded answer, and answers of a live process are not taken over."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import orjson
import pytest

from contract.answer_types import Label
from contract.answers_table import ANSWERS_FILE, ANSWERS_SCHEMA
from service.logs import room, spool
from service.logs.answers import Feedback
from tests.support import waiting
from tests.support.answer_logs import BODY, Tally, learn, open_log
from tests.support.paths import ROOT
from tests.support.small_disk import SmallDisk

eventually = partial(waiting.eventually, within_s=60.0)  # for busy machines

# A process of one version: it answers each line of its input and confirms it.
PROCESS = """
import sys
from pathlib import Path
import service.logs.answers as module
from tests.support import waiting
from tests.support.answer_logs import BODY, Tally, open_log

module.WRITE_EVERY_S = 3600.0  # it never writes
with open_log(Path(sys.argv[1]), sys.argv[2], Tally()) as log:
    for line in sys.stdin:
        request_id, *labels = line.split()
        log.record(request_id, labels, body=BODY)
        print("answered", flush=True)
"""


class Process:
    """A process of `version` whose thread never writes."""

    def __init__(self, folder: Path, version: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(folder), version],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self, request_id: str, *labels: str) -> None:
        """Let the process answer a request; return when the client has the answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(" ".join((request_id, *labels)) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "answered\n"

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL, which also ends a stopped process."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def running(folder: Path, version: str) -> Iterator[Process]:
    process = Process(folder, version)
    try:
        yield process
    finally:
        process.kill()


def rows(folder: Path) -> dict[tuple[str, str], list[Label]]:
    """The labels in the table, by request and version."""
    if not (folder / ANSWERS_FILE).exists():
        return {}
    with closing(sqlite3.connect(folder / ANSWERS_FILE)) as database:
        database.executescript(ANSWERS_SCHEMA)  # a log that has just been opened may not have created the table yet
        found = database.execute("SELECT request_id, version, labels FROM answers").fetchall()
    return {(request_id, version): orjson.loads(labels) for request_id, version, labels in found}


def left_by_a_dead_process(folder: Path, *answers: tuple[str, str, str], tail: bytes = b"") -> Path:
    """Create the file of a dead process: answers by request, version and label, followed by `tail`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [spool.line_of(request_id, version, 1.0, [label], 7) for request_id, version, label in answers]
    path = folder / f"4711-{len(list(folder.glob(spool.FILES)))}.spool"
    path.write_bytes(b"".join(lines) + tail)
    return path


@pytest.fixture
def never_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep answers of any age."""
    monkeypatch.setattr(room, "MAX_AGE_S", float("inf"))


def test_a_killed_process_loses_no_answer_that_a_client_received(tmp_path: Path) -> None:
    """SIGKILL right after the answer: feedback to the other version finds it, and no files are left."""
    with running(tmp_path, "m:2") as process:
        process.answer("r", "a")
        process.answer("q", "a", "b")
        process.kill()
    survivor, successor = Tally(), Tally()
    with open_log(tmp_path, "m:1", survivor) as log:
        assert learn(log, "r", "a") is Feedback.ACCEPTED
        assert learn(log, "q", "a", "x", "y") is Feedback.WRONG_LENGTH
        eventually(lambda: len(list(tmp_path.glob(spool.FILES))) == 2)  # the survivor's own files
    with open_log(tmp_path, "m:2", successor):
        pass
    assert rows(tmp_path) == {("r", "m:2"): ["a"], ("q", "m:2"): ["a", "b"]}
    assert (survivor.counts, successor.counts) == ({}, {"correct": 1, "wrong": 0})
    assert not list(tmp_path.glob(spool.FILES))


def test_feedback_reaches_an_answer_that_a_live_process_has_not_written(tmp_path: Path) -> None:
    """The process gets no CPU time or is stopped: its files are read and not changed."""
    tally = Tally()
    with running(tmp_path, "m:2") as process:
        process.answer("r", "a")
        process.answer("q", "b")
        process.send(signal.SIGSTOP)
        before = {path: path.read_bytes() for path in tmp_path.glob(spool.FILES)}
        with open_log(tmp_path, "m:1", tally) as log:
            assert learn(log, "r", "a") is Feedback.ACCEPTED
            assert learn(log, "never", "a") is Feedback.UNKNOWN
        assert {path: path.read_bytes() for path in tmp_path.glob(spool.FILES)} == before
        assert rows(tmp_path) == {("r", "m:2"): ["a"]}
        process.send(signal.SIGCONT)
    with open_log(tmp_path, "m:2", tally) as log:
        assert learn(log, "q", "b") is Feedback.ACCEPTED
    assert tally.counts == {"correct": 2, "wrong": 0}


def test_answers_of_dead_processes_are_compared(tmp_path: Path) -> None:
    """Both processes that answered a mirrored request died: their answers are compared under their versions' names."""
    with open_log(tmp_path, "m:1", Tally()), open_log(tmp_path, "m:2", Tally()):
        pass  # both versions are known
    with running(tmp_path, "m:1") as one, running(tmp_path, "m:2") as other:
        for request_id, answer, others in (("r", "a", "a"), ("q", "a", "b")):
            one.answer(request_id, answer)
            other.answer(request_id, others)
    tally = Tally()
    with open_log(tmp_path, "m:1", tally):
        eventually(lambda: tally.counts["same"] + tally.counts["different"] == 2)
    assert tally.counts == {"same": 1, "different": 1}
    assert rows(tmp_path) == {("r", "m:1"): ["a"], ("r", "m:2"): ["a"], ("q", "m:1"): ["a"], ("q", "m:2"): ["b"]}


@pytest.mark.usefixtures("never_old")
@pytest.mark.parametrize(
    "tail",
    [
        b'\n{"request_id":"torn","version":"m:2","at_s":1',
        b"\n" + b"\0" * 512,
        b'\n{"request_id":"short","version":"m:2"}',
        b'\n{"request_id":"n","version":"m:2","at_s":1,"labels":[null],"body_crc":1}',
        b'\n{"request_id":"n","version":"m:2","at_s":1,"labels":["a"],"body_crc":99999999999999999999}',
        b"\n[]",
        b"\n\xff\xfe",
    ],
    ids=["torn", "zeros", "a field is missing", "not a label", "too large", "not an object", "not text"],
)
def test_a_damaged_line_is_dropped_and_counted(tmp_path: Path, tail: bytes) -> None:
    """It was being written when the process died or the machine crashed. The lines after it are read."""
    after = spool.line_of("after", "m:2", 1.0, ["a"], 7)
    path = left_by_a_dead_process(tmp_path, ("before", "m:2", "a"), tail=tail + after)
    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        eventually(lambda: not path.exists())
        assert learn(log, "after", "a") is Feedback.ACCEPTED
    assert rows(tmp_path) == {("before", "m:2"): ["a"], ("after", "m:2"): ["a"]}
    assert tally.counts == {"dropped": 1}


def test_an_old_file_of_a_crashed_machine_is_removed(tmp_path: Path) -> None:
    """Its answers are from 1970 and the table keeps a week, so they are dropped."""
    path = left_by_a_dead_process(tmp_path, ("r", "m:0", "a"), tail=b"\n")
    empty = left_by_a_dead_process(tmp_path)
    with open_log(tmp_path, "m:1", Tally()):
        eventually(lambda: not path.exists() and not empty.exists())
    with open_log(tmp_path, "m:1", Tally()):
        eventually(lambda: not rows(tmp_path))


@pytest.mark.usefixtures("never_old")
def test_survivors_that_find_the_same_files_keep_each_answer_once(tmp_path: Path) -> None:
    """Ten threads, thirty files: each answer is in the table once, and there is no error."""
    for number in range(30):
        left_by_a_dead_process(tmp_path, (f"r{number}", "m:2", "a"), tail=b"\n{")
    tallies = [Tally() for _ in range(10)]
    with ExitStack() as logs:
        for tally in tallies:
            logs.enter_context(open_log(tmp_path, "m:1", tally))
        eventually(lambda: len(list(tmp_path.glob(spool.FILES))) == 20)  # their own files
    assert rows(tmp_path) == {(f"r{number}", "m:2"): ["a"] for number in range(30)}
    assert sum((tally.counts for tally in tallies), Counter()) == {"dropped": 30}


@pytest.mark.usefixtures("never_old")
def test_a_survivor_that_dies_halfway_changes_nothing(tmp_path: Path) -> None:
    """It had written the answers but not removed the file: the next survivor writes them again."""
    path = left_by_a_dead_process(tmp_path, ("r", "m:2", "a"))
    content = path.read_bytes()
    for truth, outcome in (("a", Feedback.ACCEPTED), ("b", Feedback.DUPLICATE)):
        path.write_bytes(content)
        with open_log(tmp_path, "m:1", Tally()) as log:
            eventually(lambda: not path.exists())
            assert learn(log, "r", truth) is outcome
    tally = Tally()
    with open_log(tmp_path, "m:2", tally):
        pass
    assert (tally.counts, len(rows(tmp_path))) == ({"correct": 1, "wrong": 0}, 1)


@pytest.mark.usefixtures("never_old")
def test_a_late_answer_of_a_dead_process_counts_as_the_first(tmp_path: Path) -> None:
    """The client repeated the id, and another worker of the version answered and wrote before."""
    with open_log(tmp_path, "m:2", Tally()) as log:
        log.record("r", ["newer"], body=BODY)
        eventually(lambda: rows(tmp_path))
        path = left_by_a_dead_process(tmp_path, ("r", "m:2", "older"))
        eventually(lambda: not path.exists())
    assert rows(tmp_path) == {("r", "m:2"): ["older"]}


def test_files_are_emptied_when_their_answers_are_in_the_table(tmp_path: Path) -> None:
    """This holds however long a process lives; the files are removed with it."""
    with open_log(tmp_path, "m:1", Tally()) as log:
        for number in range(3):
            log.record(f"r{number}", ["a"], body=BODY)
            assert learn(log, f"r{number}", "a") is Feedback.ACCEPTED
            eventually(lambda: not any(path.stat().st_size for path in tmp_path.glob(spool.FILES)))
    assert not list(tmp_path.glob(spool.FILES))


def test_a_spool_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers beyond the limit wait in memory only."""
    monkeypatch.setattr(spool, "MAX_BYTES", 1000)
    with open_log(tmp_path, "m:1", Tally()) as log:
        for number in range(100):
            log.record(f"r{number}", ["a"], body=BODY)
        assert all(path.stat().st_size <= 1000 for path in tmp_path.glob(spool.FILES))
    assert len(rows(tmp_path)) == 100


def test_a_full_disk_fails_no_request_and_losses_are_counted(small_disk: SmallDisk) -> None:
    """Requests are still answered; once there is space again, new answers survive a kill."""
    folder, tally = small_disk.folder / "answers", Tally()
    with open_log(folder, "m:1", tally) as log:
        log.record("before", ["a"], body=BODY)
        assert learn(log, "before", "a") is Feedback.ACCEPTED
        small_disk.fill()
        for number in range(20_000):
            log.record(f"full{number}", ["a"], body=BODY)
        eventually(lambda: tally.counts["dropped"] > 0)
        small_disk.free()
        log.record("after", ["a"], body=BODY)
        eventually(lambda: ("after", "m:1") in rows(folder))
    kept = len(rows(folder))
    assert kept + tally.counts["dropped"] == 20_002


def test_spool_files_that_could_not_be_created_are_created_later(tmp_path: Path) -> None:
    """The folder's path was a file."""
    folder, tally = tmp_path / "answers", Tally()
    folder.touch()
    with open_log(folder, "m:1", tally) as log:
        log.record("lost", ["a"], body=BODY)
        eventually(lambda: tally.counts["dropped"] == 1)
        folder.unlink()
        log.record("r", ["a"], body=BODY)
        assert learn(log, "r", "a") is Feedback.ACCEPTED
        assert len(list(folder.glob(spool.FILES))) == 2


def test_processes_killed_at_any_moment_lose_no_answer(tmp_path: Path) -> None:
    """Two processes answer as fast as they can while a third writes; feedback to every answer is accepted."""
    answered: list[str] = []

    def use(name: str, process: Process) -> None:
        for number in range(10_000):
            try:
                process.answer(f"{name}-{number}", "a")
            except (AssertionError, OSError, ValueError):
                return
            answered.append(f"{name}-{number}")

    tally = Tally()
    with open_log(tmp_path, "m:1", tally) as log:
        for turn in range(3):
            with ExitStack() as all_processes:
                processes = [all_processes.enter_context(running(tmp_path, "m:2")) for _ in range(2)]
                users = [
                    threading.Thread(target=use, args=(f"{turn}-{number}", process))
                    for number, process in enumerate(processes)
                ]
                for user in users:
                    user.start()
                eventually(lambda turn=turn: sum(name.startswith(f"{turn}-") for name in answered) > 200)
                for process in processes:
                    process.send(signal.SIGKILL)
                for user in users:
                    user.join()
            outcomes = Counter(learn(log, name, "a") for name in answered[-20:])
            assert outcomes == {Feedback.ACCEPTED: 20}
        eventually(lambda: len(rows(tmp_path)) >= len(answered))
    assert {request_id for request_id, _ in rows(tmp_path)} >= set(answered)


def test_each_log_has_its_own_spool_files(tmp_path: Path) -> None:
    """Two logs of one process share its pid and still have separate files."""
    with open_log(tmp_path, "m:1", Tally()), open_log(tmp_path, "m:1", Tally()):
        names = [path.name for path in tmp_path.glob(spool.FILES)]
    assert len(names) == 4
    assert {name.partition("-")[0] for name in names} == {str(os.getpid())}


@pytest.mark.parametrize("left", ["a pipe", "a link"])
def test_a_pipe_or_link_is_neither_read_nor_waited_for(tmp_path: Path, left: str) -> None:
    """Another version may create one to block a process or to make it read a file that it cannot read itself."""
    elsewhere = left_by_a_dead_process(tmp_path / "elsewhere", ("r", "m:2", "a"))
    (tmp_path / "answers").mkdir()
    path = tmp_path / "answers" / "4711-0.spool"
    os.mkfifo(path) if left == "a pipe" else path.symlink_to(elsewhere)
    with open_log(tmp_path / "answers", "m:1", tally := Tally()) as log:
        log.record("q", ["a"], body=b"")
        assert learn(log, "r", "a") is Feedback.UNKNOWN
        assert learn(log, "q", "a") is Feedback.ACCEPTED
    assert rows(tmp_path / "answers") == {("q", "m:1"): ["a"]}
    assert tally.counts["correct"] == 1
