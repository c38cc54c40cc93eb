"""A keeper that all is well for sleeps, and whatever happens wakes it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kanaria.stack.processes import marks
from kanaria.stack.supervision import KEEPER
from tests.support.processes import Kept, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no other system wakes a keeper for each change")

# Its net is away: what it does not see at once it never sees.
SLEEPS_ON = """
import math, sys
from kanaria.stack import keeper, keeper_loop
keeper_loop.IDLE_TICK_S = 10.0**6
keeper.main()
"""


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    """A state folder with such a keeper."""
    made = Kept(tmp_path / "state")
    start(made)
    yield made
    made.supervisor.shutdown()


def start(kept: Kept) -> None:
    (kept.home / "logs").mkdir(exist_ok=True)
    command = [sys.executable, "-c", SLEEPS_ON, str(kept.home), str(kept.home / "logs")]
    subprocess.run(command, env={**os.environ, **marks(kept.home, KEEPER)}, check=True, timeout=60)


def sleeps(kept: Kept) -> None:
    """Wait until it does not wake up for four times as long as it otherwise waits."""
    keeper = psutil.Process(kept.keeper)
    seen: list[int] = []

    def is_asleep() -> bool:
        seen.append(keeper.num_ctx_switches().voluntary)
        return len(seen) > 40 and seen[-40] == seen[-1]

    until(is_asleep)


def test_a_keeper_sleeps_while_all_runs_and_sees_what_should_run(kept: Kept) -> None:
    """It looked five times a second. A program that comes is started, one that goes is ended."""
    one = kept.run("one")
    sleeps(kept)
    two = kept.run("two")
    sleeps(kept)
    kept.supervisor.stop("one")
    until(lambda: kept.info("one") is None)
    assert not psutil.pid_exists(one)
    sleeps(kept)
    assert kept.pid("two") == two


@pytest.mark.parametrize("is_taken_over", [False, True], ids=["its own child", "an earlier keeper's"])
def test_what_dies_while_the_keeper_sleeps_is_started_again(kept: Kept, is_taken_over: bool) -> None:
    """Also what it is not told of as a parent."""
    pid = kept.run("one")
    if is_taken_over:
        kept.kill_keeper()
        start(kept)
    for _ in range(2):
        sleeps(kept)
        os.kill(pid, signal.SIGKILL)
        pid = kept.pid("one", other_than=pid)
    assert kept.info("one").has_crashed
