"""Forked workers: they are replaced when they end, end with their server, and never continue as the server."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.children import started
from tests.support.processes import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")

WAITING = "time.sleep(600)"
# A handler might be due between the last check for signals and a sleep, and then wait until the sleep ends.
STUBBORN = (
    "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); os.write(1, b'waits\\n'); "
    "signal.sigwait([signal.SIGTERM]); time.sleep(0.3); os.write(1, b'done\\n')"
)
NOTHING = "None"


@contextmanager
def workers(work: str, log: Path, *, count: int = 2, first: str = "") -> Iterator[psutil.Process]:
    """A server whose workers run `work`; `first` runs before any worker exists."""
    code = (
        "import os, signal, sys, time\n"
        f"from kanaria.stack.forks import Workers\n{first}\n"
        f"def work(number):\n    os.write(1, b'worker %d works\\n' % number); {work}\n"
        f"workers = Workers(work, {count})\nworkers.run()\nprint('server ends', flush=True)\n"
    )
    with log.open("wb") as output, started([sys.executable, "-c", code], stdout=output, stderr=output) as process:
        yield psutil.Process(process.pid)


def test_a_worker_that_ends_is_replaced_under_its_number(tmp_path: Path) -> None:
    """The other worker stays."""
    log = tmp_path / "log"
    with workers(WAITING, log) as server:
        until(lambda: log.read_text().count("works") == 2)
        first, second = server.children()
        first.kill()
        until(lambda: log.read_text().count("works") == 3)
        assert second.is_running()
        assert log.read_text().count("worker 1 works") == 2
        assert "exit code -9" in log.read_text()


def test_workers_finish_before_their_server_ends(tmp_path: Path) -> None:
    """SIGTERM to the server alone reaches both workers, and none is restarted."""
    log = tmp_path / "log"
    with workers(STUBBORN, log) as server:
        until(lambda: log.read_text().count("waits") == 2)
        server.send_signal(signal.SIGTERM)
        until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
        lines = log.read_text().splitlines()
        assert lines.count("done") == 2
        assert lines[-1] == "server ends"
        assert log.read_text().count("works") == 2


@pytest.mark.parametrize(
    ("work", "code"), [(NOTHING, 0), ("sys.exit(3)", 3), ("1 / 0", 1)], ids=["returns", "exits", "raises"]
)
def test_a_worker_never_continues_as_its_server(work: str, code: int, tmp_path: Path) -> None:
    """However its work ends, its process ends too."""
    log = tmp_path / "log"
    with workers(work, log, count=1) as server:
        until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
        lines = log.read_text().splitlines()  # whole lines: from Python 3.13 on, a traceback shows this code
        assert lines.count("worker 1 works") == 2  # it is restarted
        assert len([line for line in lines if line.endswith(f"ended: exit code {code}")]) == 2
        assert "server ends" not in lines


ATTEMPTS = "import mmap\nattempts = mmap.mmap(-1, 3)"  # of each worker, by its number
FAILS_TWICE = "attempts[number] += 1; attempts[number] < 3 and sys.exit(3)"


@pytest.mark.parametrize(
    "work",
    [
        pytest.param("sys.exit(3)", id="each fails"),
        pytest.param(
            f"number == 2 and (time.sleep(1.5), sys.exit(3)); {FAILS_TWICE}; {WAITING}", id="one is loading again"
        ),
    ],
)
def test_a_server_ends_if_none_of_its_workers_starts(work: str, tmp_path: Path) -> None:
    """It ran forever, and the process that had started it waited until a deadline. No worker outlives it."""
    log = tmp_path / "log"
    with workers(work, log, first=ATTEMPTS) as server:
        assert server.wait(60) == 1
        assert log.read_text().count("ended: exit code 3") >= 4
        assert log.read_text().count("works") == log.read_text().count("ended")
        assert "no worker has started" in log.read_text()
        assert "server ends" not in log.read_text()


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(f"number == 1 and sys.exit(3); {WAITING}", id="another worker loads"),
        pytest.param(f"number == 1 and workers.report_started(); {FAILS_TWICE}; {WAITING}", id="one has started"),
        pytest.param("workers.report_started(); sys.exit(1)", id="each ended after its start"),
    ],
)
def test_a_server_keeps_trying_while_a_worker_may_serve(work: str, tmp_path: Path) -> None:
    """The obstacle to the other workers may disappear."""
    log = tmp_path / "log"
    with workers(work, log, first=ATTEMPTS) as server:
        until(lambda: log.read_text().count("worker 1 works") >= 3)
        assert server.is_running()
        assert "no worker has started" not in log.read_text()


def test_a_full_disk_stops_neither_server_nor_workers(tmp_path: Path) -> None:
    """The server's log lines are lost, but it still replaces workers."""
    notes = tmp_path / "notes"
    full = "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    note = f"os.close(os.open({str(notes)!r} + str(os.getpid()), os.O_CREAT))"
    work = f"None\ndef noted(number):\n    {note}; {WAITING}\nwork = noted"
    with workers(work, tmp_path / "log", first=full) as server:
        until(lambda: len(list(tmp_path.glob("notes*"))) == 2)
        server.children()[0].kill()
        until(lambda: len(list(tmp_path.glob("notes*"))) == 3)
        assert server.is_running()


def test_a_failed_fork_is_retried(tmp_path: Path) -> None:
    """The machine may be out of memory for a moment, or the user may have too many processes."""
    fails = (
        "real, left = os.fork, [1, 1, 1]\nos.fork = lambda: os.open('/no/such', 0) if left and left.pop() else real()"
    )
    log = tmp_path / "log"
    with workers(WAITING, log, first=fails):
        until(lambda: log.read_text().count("works") == 2)
        assert log.read_text().count("could not be started: [Errno") == 3


@pytest.mark.needs("serve")
def test_each_worker_draws_different_random_numbers(tmp_path: Path) -> None:
    """This includes a replacement worker, and covers Python, numpy and torch."""
    first = "import random, numpy, torch\nfor each in (random.seed, numpy.random.seed, torch.manual_seed): each(7)"
    draw = "os.write(1, b'drew %r %r %r\\n' % (random.random(), numpy.random.rand(), torch.rand(1).item()))"
    log = tmp_path / "log"
    with workers(f"{draw}; {WAITING}", log, first=first) as server:
        until(lambda: log.read_text().count("drew") == 2)
        server.children()[0].kill()
        until(lambda: log.read_text().count("drew") == 3)
    drawn = [line.split()[1:] for line in log.read_text().splitlines() if line.startswith("drew")]
    assert [len(set(of_one_kind)) for of_one_kind in zip(*drawn, strict=True)] == [3, 3, 3]


def test_the_server_does_not_reap_children_of_the_model(tmp_path: Path) -> None:
    """A module of the model started the child and waits for its exit code.

    A module that ignores SIGCHLD does no harm either.
    """
    first = (
        "import subprocess\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nother = subprocess.Popen(['sleep', '600'])"
    )
    log = tmp_path / "log"
    with workers(
        f"{WAITING}\nimport atexit\natexit.register(lambda: print('other ended', other.wait()))", log, first=first
    ) as server:
        until(lambda: log.read_text().count("works") == 2)
        (other,) = [child for child in server.children() if child.name() == "sleep"]
        other.kill()
        until(lambda: other.status() == psutil.STATUS_ZOMBIE)
        next(child for child in server.children() if child != other).kill()
        until(lambda: log.read_text().count("works") == 3)
        server.send_signal(signal.SIGTERM)
        until(lambda: "other ended -9" in log.read_text())
        assert log.read_text().count("ended as asked") == 2


def test_an_error_of_a_worker_is_in_the_log(tmp_path: Path) -> None:
    """The error appears nowhere else."""
    log = tmp_path / "log"
    with workers("1 / 0", log, count=1):
        until(lambda: "ZeroDivisionError" in log.read_text())
