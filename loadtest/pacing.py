"""Hands out the arrivals of one schedule, in order, to any free user.

This makes the load open-loop: users wait for arrivals; arrivals do not wait for answers.
"""

from collections.abc import Iterator

from loadtest.schedule import Arrival


class Pacer:
    """The schedule that all users of a run share."""

    def __init__(self, schedule: Iterator[Arrival]) -> None:
        self._schedule = schedule
        self._claimed = 0
        self._exhausted = False

    def claim(self) -> Arrival | None:
        """The next arrival, which the caller must send when it is due; None at the end of the schedule."""
        arrival = next(self._schedule, None)
        if arrival is None:
            self._exhausted = True
        else:
            self._claimed += 1
        return arrival

    def release(self) -> None:
        """Record that a claimed arrival was answered or given up."""
        self._claimed -= 1

    @property
    def is_finished(self) -> bool:
        """Whether every arrival was claimed and released."""
        return self._exhausted and self._claimed == 0

    def overdue(self, now_s: float) -> Iterator[Arrival]:
        """Take the arrivals that are due by `now_s` and that no user claimed because all were busy."""
        while (arrival := next(self._schedule, None)) is not None and arrival.due_s <= now_s:
            yield arrival
