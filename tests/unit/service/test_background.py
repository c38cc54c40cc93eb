"""A background writer takes its turns regularly, sooner when asked, and once more before it stops."""

import threading
import time

from service.logs.background import BackgroundWriter

NEVER_S = 3600.0


class Notebook(BackgroundWriter):
    """Records each turn."""

    def __init__(self, every_s: float = NEVER_S) -> None:
        super().__init__("test", every_s=every_s)
        self.turns: list[bool] = []
        self.seen = threading.Semaphore(0)

    def ask_for_a_turn(self) -> None:
        self._soon()

    def _turn(self, is_last: bool) -> None:
        self.turns.append(is_last)
        self.seen.release()


def test_turns_come_by_themselves() -> None:
    """At regular times, without being asked for."""
    with Notebook(every_s=0.01) as notebook:
        assert all(notebook.seen.acquire(timeout=5) for _ in range(3))


def test_a_turn_that_is_asked_for_does_not_wait_for_its_time() -> None:
    """Feedback is answered at once, even if the log is rarely written."""
    with Notebook() as notebook:
        notebook.ask_for_a_turn()
        assert notebook.seen.acquire(timeout=5)
    assert notebook.turns == [False, True]


def test_turns_that_are_asked_for_together_are_one_turn() -> None:
    """A flood of feedback causes only a few turns."""
    with Notebook() as notebook:
        for _ in range(1000):
            notebook.ask_for_a_turn()
        assert notebook.seen.acquire(timeout=5)
    assert len(notebook.turns) < 20


def test_the_last_turn_is_taken_before_the_end() -> None:
    """A server that stops writes what is left, even if it stops at once."""
    for wait_s in (0.0, 0.05):
        with Notebook() as notebook:
            time.sleep(wait_s)
        assert notebook.turns == [True]
