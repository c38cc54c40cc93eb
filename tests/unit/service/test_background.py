"""A background writer takes regular turns, an earlier one on request, and one more before it stops."""

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


def test_turns_are_taken_regularly(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are taken without a request, even if there is nothing to do."""
    monkeypatch.setattr(module, "IDLE_S", 0.02)
    with Notebook(every_s=0.01) as notebook:
        assert all(notebook.seen.acquire(timeout=60) for _ in range(3))


def test_new_work_wakes_an_idle_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle thread takes few turns, but new work does not wait longer than usual."""
    monkeypatch.setattr(module, "IDLE_S", NEVER_S)
    with Notebook(every_s=0.01) as notebook:
        eventually(lambda: notebook._is_idle)
        before = len(notebook.turns)
        for word in ("one", "two"):
            notebook.give(word)
            eventually(lambda: not notebook.waiting)
            eventually(lambda: notebook._is_idle)
        assert len(notebook.turns) in {before + 2, before + 3, before + 4}  # each turn may be followed by an empty one


def test_a_requested_turn_is_taken_at_once() -> None:
    """Feedback is answered at once, even if the log is rarely written."""
    with Notebook() as notebook:
        notebook.ask_for_a_turn()
        assert notebook.seen.acquire(timeout=60)
    assert notebook.turns == [False, True]


def test_simultaneous_requests_for_a_turn_cause_one_turn() -> None:
    """A flood of feedback causes only a few turns."""
    with Notebook() as notebook:
        for _ in range(1000):
            notebook.ask_for_a_turn()
        assert notebook.seen.acquire(timeout=60)
    assert len(notebook.turns) < 20


def test_a_last_turn_is_taken_before_the_thread_stops() -> None:
    """A server that stops writes what is left, even if it stops at once."""
    for wait_s in (0.0, 0.05):
        with Notebook() as notebook:
            time.sleep(wait_s)
        assert notebook.turns == [True]


def test_a_failed_turn_is_counted_and_the_next_one_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """This also holds for the last turn. A failure in every turn is logged only now and then."""
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


def test_a_thread_that_hangs_or_is_not_running_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that hung and goes on is alive again."""
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


def test_a_thread_that_works_for_long_pauses_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It pauses after some time, not after each piece of work."""
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    monkeypatch.setattr(module, "WORK_S", NEVER_S)
    quick = Pauses()
    quick.take()
    assert pauses == []
    monkeypatch.setattr(module, "WORK_S", 0.0)
    quick.take()
    assert pauses == [module.PAUSE_S]
