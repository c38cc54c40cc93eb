"""Two clocks: one for the time that people read, one for how long something took.

The wall clock may be set back or ahead at any moment. Nothing is decided by it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

_SLEWED_S = 1.0  # an NTP daemon corrects less than this between two beats without a jump


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on both clocks."""

    wall_s: float  # Unix seconds
    steady_s: float  # seconds since an unknown moment; it is never set, and stands still while the machine sleeps


Clock = Callable[[], Instant]


def system_clock() -> Instant:
    """Now."""
    return Instant(time.time(), time.monotonic())


class WallClock:
    """Finds out when the wall clock was set."""

    def __init__(self) -> None:
        self._ahead_s: float | None = None  # of the steady clock, when it was last asked

    def jumped_s(self, now: Instant) -> float:
        """By how much it was set since the last call, seconds; 0 when it was not."""
        ahead_s = now.wall_s - now.steady_s
        jumped_s = 0.0 if self._ahead_s is None else ahead_s - self._ahead_s
        self._ahead_s = ahead_s
        return jumped_s if abs(jumped_s) > _SLEWED_S else 0.0
