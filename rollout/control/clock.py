"""Two clocks: the wall clock for times that people read, and a steady clock for durations.

The wall clock may be set back or ahead at any moment, so nothing is decided by it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

_SLEWED_S = 1.0  # an NTP daemon that slews the clock corrects less than this between two beats


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on both clocks."""

    wall_s: float  # Unix seconds
    steady_s: float  # seconds since an arbitrary moment; never set, and stopped while the machine sleeps


Clock = Callable[[], Instant]


def system_clock() -> Instant:
    """The present moment on both clocks."""
    return Instant(time.time(), time.monotonic())


class WallClock:
    """Detects that the wall clock was set."""

    def __init__(self) -> None:
        self._ahead_s: float | None = None  # the wall clock's lead over the steady clock at the last call

    def jumped_s(self, now: Instant) -> float:
        """By how much the wall clock was set since the last call, seconds; 0: it was not."""
        ahead_s = now.wall_s - now.steady_s
        jumped_s = 0.0 if self._ahead_s is None else ahead_s - self._ahead_s
        self._ahead_s = ahead_s
        return jumped_s if abs(jumped_s) > _SLEWED_S else 0.0
