"""Forked workers: replaced when they end, ended with their server, never more of the server than a fork should be."""

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
STUBBORN = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), os.write(1, b'done\\n'), os._exit(0)))"
NOTHING = "None"


@contextmanager
def workers(work: str, log: Path, *, count: int = 2) -> Iterator[psutil.Process]:
    """A server whose workers run `work`."""
    code = (
        "import os, signal, sys, time\n"
        "from kanaria.stack.forks import Workers\n"
        f"def work(number):\n    os.write(1, b'worker %d works\\n' % number); {work}\n"
        f"Workers(work, {count}).run()\nprint('server ends', flush=True)\n"
    )
    with log.open("wb") as output, started([sys.executable, "-c", code], stdout=output, stderr=output) as process:
        yield psutil.Process(process.pid)


def test_a_worker_that_ends_is_replaced_under_its_number(tmp_path: Path) -> None:
    """The other one stays."""
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
    """SIGTERM to the server alone reaches both; none is started again."""
    log = tmp_path / "log"
    with workers(f"{STUBBORN}; {WAITING}", log) as server:
        until(lambda: log.read_text().count("works") == 2)
        server.send_signal(signal.SIGTERM)
        until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
        lines = log.read_text().splitlines()
        assert lines.count("done") == 2
        assert lines[-1] == "server ends"
        assert log.read_text().count("works") == 2


@pytest.mark.parametrize(
    ("work", "code"), [(NOTHING, 0), ("sys.exit(3)", 3), ("1 / 0", 1)], ids=["returns", "exits", "raises"]
)
def test_a_worker_never_goes_on_as_its_server(work: str, code: int, tmp_path: Path) -> None:
    """However its work ends, its process does."""
    log = tmp_path / "log"
    with workers(work, log, count=1) as server:
        until(lambda: f"ended: exit code {code}" in log.read_text())
        until(lambda: log.read_text().count("works") >= 2)  # it is tried again
        assert "server ends" not in log.read_text()
        server.send_signal(signal.SIGTERM)
        until(lambda: "server ends" in log.read_text())
        assert log.read_text().count("server ends") == 1


def test_an_error_of_a_worker_is_in_the_log(tmp_path: Path) -> None:
    """Nobody else would tell of it."""
    log = tmp_path / "log"
    with workers("1 / 0", log, count=1):
        until(lambda: "ZeroDivisionError" in log.read_text())
