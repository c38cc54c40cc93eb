"""A background writer takes its turns regularly, sooner when asked, and once more before it stops, whatever happens."""

import threading
import time

import pytest

import service.logs.background as module
from service.logs.background import BackgroundWriter, Pauses
from tests.support.waiting import eventually

NEVER_S = 3600.0


class Notebook(BackgroundWriter):
    """Records each turn."""

    def __init__(self, every_s: float = NEVER_S) -> None:
        super().__init__("test", every_s=every_s, count_failure=self.count)
        self.turns: list[bool] = []
        self.seen = threading.Semaphore(0)
        self.failures = 0
        self.waiting: list[str] = []
        self.is_failing = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def count(self) -> None:
        self.failures += 1

    def ask_for_a_turn(self) -> None:
        self._soon()

    def give(self, word: str) -> None:
        self.waiting.append(word)
        self._given()

    @property
    def _has_waiting(self) -> bool:
        return bool(self.waiting)

    def _turn(self, is_last: bool) -> None:
        self.turns.append(is_last)
        self.waiting.clear()
        self.seen.release()
        self.may_go_on.wait()
        if self.is_failing:
            raise RuntimeError("a turn that fails")


def test_turns_come_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """At regular times, without being asked for, also while there is nothing to do."""
    monkeypatch.setattr(module, "IDLE_S", 0.02)
    with Notebook(every_s=0.01) as notebook:
        assert all(notebook.seen.acquire(timeout=60) for _ in range(3))


def test_an_idle_thread_wakes_up_for_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing waits, turns are rare; what comes then waits no longer than it always did."""
    monkeypatch.setattr(module, "IDLE_S", NEVER_S)
    with Notebook(every_s=0.01) as notebook:
        eventually(lambda: notebook._is_idle)
        before = len(notebook.turns)
        for word in ("one", "two"):
            notebook.give(word)
            eventually(lambda: not notebook.waiting)
            eventually(lambda: notebook._is_idle)
        assert len(notebook.turns) in {before + 2, before + 3, before + 4}  # each may be followed by an empty one


def test_a_turn_that_is_asked_for_does_not_wait_for_its_time() -> None:
    """Feedback is answered at once, even if the log is rarely written."""
    with Notebook() as notebook:
        notebook.ask_for_a_turn()
        assert notebook.seen.acquire(timeout=60)
    assert notebook.turns == [False, True]


def test_turns_that_are_asked_for_together_are_one_turn() -> None:
    """A flood of feedback causes only a few turns."""
    with Notebook() as notebook:
        for _ in range(1000):
            notebook.ask_for_a_turn()
        assert notebook.seen.acquire(timeout=60)
    assert len(notebook.turns) < 20


def test_the_last_turn_is_taken_before_the_end() -> None:
    """A server that stops writes what is left, even if it stops at once."""
    for wait_s in (0.0, 0.05):
        with Notebook() as notebook:
            time.sleep(wait_s)
        assert notebook.turns == [True]


def test_a_turn_that_fails_is_counted_and_the_next_one_comes(capsys: pytest.CaptureFixture[str]) -> None:
    """Also the last. What fails at each turn is logged now and then."""
    with Notebook(every_s=0.01) as notebook:
        notebook.is_failing = True
        eventually(lambda: notebook.failures > 5)
        assert notebook.is_alive
        notebook.is_failing = False
        seen = len(notebook.turns)
        eventually(lambda: len(notebook.turns) > seen)
        notebook.is_failing = True
    assert notebook.turns[-1]
    assert capsys.readouterr().out.count("background_failed") == 1


def test_a_thread_that_hangs_ends_or_was_never_started_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hung and goes on is alive again."""
    monkeypatch.setattr(module, "STUCK_S", 0.2)
    notebook = Notebook(every_s=0.01)
    assert not notebook.is_alive
    with notebook:
        eventually(lambda: notebook.is_alive)
        notebook.may_go_on.clear()
        eventually(lambda: not notebook.is_alive)
        notebook.may_go_on.set()
        eventually(lambda: notebook.is_alive)
    assert not notebook.is_alive


def test_a_thread_that_works_for_long_lets_the_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """It pauses after a while, not after each piece of work."""
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    monkeypatch.setattr(module, "WORK_S", NEVER_S)
    quick = Pauses()
    quick.take()
    assert pauses == []
    monkeypatch.setattr(module, "WORK_S", 0.0)
    quick.take()
    assert pauses == [module.PAUSE_S]
