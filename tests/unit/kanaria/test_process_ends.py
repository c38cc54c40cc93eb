"""Files that become readable when a process ends."""

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from kanaria.stack.identity import Identity
from kanaria.stack.process_ends import ProcessEnds
from tests.support.processes import SLEEPER

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no other system has files of processes")
LIMIT_S = 60.0


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    with ExitStack() as stack:
        started = [stack.enter_context(subprocess.Popen(SLEEPER)) for _ in range(2)]
        for process in started:
            stack.callback(process.kill)
        yield started


def identity(process: subprocess.Popen[bytes]) -> Identity:
    found = Identity.of(process.pid)
    assert found is not None
    return found


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_end_of_a_process_is_seen_and_no_file_stays_open(processes: list[subprocess.Popen[bytes]]) -> None:
    """This holds however often, and for whichever processes, the files are requested."""
    ends, found, before = ProcessEnds(), [identity(process) for process in processes], open_files()
    files = ends.of(found)
    assert files is not None
    assert [ends.of(found) for _ in range(5)] == [files] * 5
    assert (open_files(), select.select(files, [], [], 0)[0]) == (before + 2, [])
    processes[1].kill()
    assert select.select(files, [], [], LIMIT_S)[0] == [files[1]]
    assert ends.of(found[:1]) == files[:1]
    assert ends.of(()) == ()
    assert open_files() == before


def test_an_ended_or_replaced_process_has_no_file(processes: list[subprocess.Popen[bytes]]) -> None:
    """The caller then checks the process itself."""
    ends, (one, other), before = ProcessEnds(), [identity(process) for process in processes], open_files()
    assert ends.of([replace(one, started_s=one.started_s - 100)]) is None
    processes[1].kill()
    processes[1].wait()
    assert ends.of([other]) is None
    assert open_files() == before
