"""Turns on a thread: taken now and then, sooner when asked, and a last one before it stops."""

import threading
import time
from collections.abc import Callable

from service.turns import Turns

NEVER_S = 3600.0


class Taken:
    """Notes each turn."""

    def __init__(self) -> None:
        self.turns: list[bool] = []
        self.seen = threading.Semaphore(0)

    def __call__(self, is_last: bool) -> None:
        self.turns.append(is_last)
        self.seen.release()


def running(work: Callable[[bool], None], every_s: float) -> Turns:
    turns = Turns("test", work, every_s=every_s)
    turns.start()
    return turns


def test_turns_come_by_themselves() -> None:
    """Again and again, without being asked."""
    taken = Taken()
    turns = running(taken, 0.01)
    assert all(taken.seen.acquire(timeout=5) for _ in range(3))
    turns.stop()


def test_a_turn_that_is_wanted_does_not_wait_for_its_time() -> None:
    """Feedback is answered now, though the log is seldom written."""
    taken = Taken()
    turns = running(taken, NEVER_S)
    turns.soon()
    assert taken.seen.acquire(timeout=5)
    turns.stop()
    assert taken.turns == [False, True]


def test_wishes_that_come_together_share_a_turn() -> None:
    """A flood of feedback costs no more turns than there is time for."""
    taken = Taken()
    turns = running(taken, NEVER_S)
    for _ in range(1000):
        turns.soon()
    assert taken.seen.acquire(timeout=5)
    turns.stop()
    assert len(taken.turns) < 20


def test_the_last_turn_is_taken_before_stop_returns() -> None:
    """What was handed over is written when a server goes; also when it stops at once."""
    for wait_s in (0.0, 0.05):
        taken = Taken()
        turns = running(taken, NEVER_S)
        time.sleep(wait_s)
        turns.stop()
        assert taken.turns == [True]
