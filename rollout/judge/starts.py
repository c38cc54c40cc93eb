"""A prior over the window in which harm begins, for a release that may last for ever.

Half of it is on the first window: most bad versions are bad from the start. A part is on the windows after a change of
weight, when load, caches and users change. A part is on all windows, less and less as time goes by: however long a
release waits, there is something left to bet. Why these: docs/decisions/0023-when-harm-begins.md.
"""

import math

FIRST, CHANGES, EVER = 0.5, 0.15, 0.35  # the three parts; their sum is 1
SPREAD = 100  # windows until 1 - 1/sqrt(2) of `EVER` is spent


class Starts:
    """The prior of one stream of windows, spent one by one. What is spent and what is left are 1 together, always."""

    def __init__(self, *, first_only: bool = False) -> None:
        """
        Args:
            first_only: harm is there from the first window, or never.
        """
        self._first, self._change, self._ever = (1.0, 0.0, 0.0) if first_only else (FIRST, CHANGES, EVER)
        self._windows = self._changes = 0
        self._left = 1.0  # share of `EVER` for harm that begins after these windows
        self._is_changed = False

    def weight_changed(self) -> None:
        """The windows from now on have another canary weight. Say so before anything is known of their counts."""
        self._is_changed = True

    def log_next(self) -> float:
        """Log prior of harm that begins in the coming window, which is spent with it."""
        now, then = self._left, math.sqrt(SPREAD / (self._windows + 1 + SPREAD))
        prior = self._ever * (now * then) ** 2 / ((now + then) * SPREAD)  # `now` less `then`, without cancellation
        if self._windows == 0:
            prior += self._first
        elif self._is_changed:
            self._changes += 1
            prior += self._change * 2 / ((self._changes + 1) * (self._changes + 2))
        self._is_changed = False
        self._windows += 1
        self._left = then
        return _log(prior)

    @property
    def log_left(self) -> float:
        """Log prior of harm that begins later than the windows so far."""
        first = 0.0 if self._windows else self._first
        return _log(first + self._change * 2 / (self._changes + 2) + self._ever * self._left)


def _log(prior: float) -> float:
    return math.log(prior) if prior else -math.inf
