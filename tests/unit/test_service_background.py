"""Turns of a background writer: taken now and then, sooner when asked, and a last one before it stops."""

import threading
import time

from service.background import BackgroundWriter

NEVER_S = 3600.0


class Notebook(BackgroundWriter):
    """Notes each turn."""

    def __init__(self, every_s: float = NEVER_S) -> None:
        super().__init__("test", every_s=every_s)
        self.turns: list[bool] = []
        self.seen = threading.Semaphore(0)

    def wish(self) -> None:
        self._soon()

    def _turn(self, is_last: bool) -> None:
        self.turns.append(is_last)
        self.seen.release()


def test_turns_come_by_themselves() -> None:
    """Again and again, without being asked."""
    with Notebook(every_s=0.01) as notebook:
        assert all(notebook.seen.acquire(timeout=5) for _ in range(3))


def test_a_turn_that_is_wanted_does_not_wait_for_its_time() -> None:
    """Feedback is answered now, though the log is seldom written."""
    with Notebook() as notebook:
        notebook.wish()
        assert notebook.seen.acquire(timeout=5)
    assert notebook.turns == [False, True]


def test_wishes_that_come_together_share_a_turn() -> None:
    """A flood of feedback costs no more turns than there is time for."""
    with Notebook() as notebook:
        for _ in range(1000):
            notebook.wish()
        assert notebook.seen.acquire(timeout=5)
    assert len(notebook.turns) < 20


def test_the_last_turn_is_taken_before_the_end() -> None:
    """What was handed over is written when a server goes; also when it goes at once."""
    for wait_s in (0.0, 0.05):
        with Notebook() as notebook:
            time.sleep(wait_s)
        assert notebook.turns == [True]
