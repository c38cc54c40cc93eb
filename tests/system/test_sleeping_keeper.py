"""A keeper sleeps while everything runs, and every event wakes it."""

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

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a keeper is woken by each change on Linux only")

# The periodic check is disabled: what the keeper does not see at once it never sees.
WITHOUT_PERIODIC_CHECK = """
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
    command = [sys.executable, "-c", WITHOUT_PERIODIC_CHECK, str(kept.home), str(kept.home / "logs")]
    subprocess.run(command, env={**os.environ, **marks(kept.home, KEEPER)}, check=True, timeout=60)


def wait_until_asleep(kept: Kept) -> None:
    """Wait until the keeper has not woken up for four times its normal interval."""
    keeper = psutil.Process(kept.keeper)
    seen: list[int] = []

    def is_asleep() -> bool:
        seen.append(keeper.num_ctx_switches().voluntary)
        return len(seen) > 40 and seen[-40] == seen[-1]

    until(is_asleep)


def test_a_sleeping_keeper_starts_and_stops_programs_at_once(kept: Kept) -> None:
    """It used to look five times a second. A new program is started, and a removed one is stopped."""
    one = kept.run("one")
    wait_until_asleep(kept)
    two = kept.run("two")
    wait_until_asleep(kept)
    kept.supervisor.stop("one")
    until(lambda: kept.info("one") is None)
    assert not psutil.pid_exists(one)
    wait_until_asleep(kept)
    assert kept.pid("two") == two


@pytest.mark.parametrize("is_taken_over", [False, True], ids=["its own child", "started by an earlier keeper"])
def test_a_process_that_dies_while_the_keeper_sleeps_is_restarted(kept: Kept, is_taken_over: bool) -> None:
    """This includes a process that is not the keeper's child."""
    pid = kept.run("one")
    if is_taken_over:
        kept.kill_keeper()
        start(kept)
    for _ in range(2):
        wait_until_asleep(kept)
        os.kill(pid, signal.SIGKILL)
        pid = kept.pid("one", other_than=pid)
    assert kept.info("one").has_crashed
