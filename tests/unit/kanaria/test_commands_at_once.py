"""Commands that start and stop the same stack in the same moment, with real keepers."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kanaria.settings import Settings
from kanaria.stack.locks import one_command
from kanaria.stack.stack import Stack
from tests.support.processes import Kept, until


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path / "state"))
    made = Kept(tmp_path / "state")
    made.supervisor.start()
    made.run("controller")
    yield made
    made.supervisor.shutdown()


def test_a_command_that_waits_is_not_disturbed_by_another_that_ends_the_keeper(kept: Kept) -> None:
    """It started a keeper, which the other command ended as it ends every keeper: `kanaria upgrade` failed."""
    is_ready = threading.Event()
    stack = Stack(Settings(), by="me")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(
            stack._wait, "the controller", is_ready.is_set, program="controller", say=print, limit_s=120
        )
        try:
            for _ in range(3):
                with one_command(kept.home, doing="kanaria upgrade", say=print):
                    with kept.supervisor.taken_over(doing="kanaria upgrade"):
                        pass
                    kept.supervisor.start()
        finally:
            is_ready.set()
        waiting.result(60)


def test_while_a_command_works_no_other_starts_a_keeper(kept: Kept) -> None:
    """The new keeper got the variables of the command that waits, not of the one that starts it."""
    until_s = time.monotonic() + 1.0
    stack, seen = Stack(Settings(), by="me"), list[bool]()

    def is_over() -> bool:
        seen.append(kept.supervisor.is_running)
        return time.monotonic() >= until_s

    with one_command(kept.home, doing="kanaria upgrade", say=print):
        kept.kill_keeper()
        stack._wait("the controller", is_over, program="controller", say=print, limit_s=120)
    assert seen
    assert not any(seen)
    stack._wait("a keeper", lambda: kept.supervisor.is_running, program="controller", say=print, limit_s=120)


def test_a_foreground_command_leaves_the_keeper_to_a_command_that_works(kept: Kept) -> None:
    """It says that a keeper ended only if it has started the next one."""
    lines: list[str] = []
    with ThreadPoolExecutor() as pool:
        try:
            with one_command(kept.home, doing="kanaria upgrade", say=print):
                kept.kill_keeper()
                staying = pool.submit(Stack(Settings(), by="me").stay, say=lines.append)
                time.sleep(2.5)
                assert (kept.supervisor.is_running, lines) == (False, [])
            until(lambda: lines)
            assert lines == ["the keeper had ended; a new one took over the running processes"]
            assert kept.supervisor.is_running
        finally:
            kept.supervisor.shutdown()
        staying.result(60)
