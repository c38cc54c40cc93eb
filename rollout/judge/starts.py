"""A prior over the window in which harm begins, for a release of unlimited length.

Half of it is on the first window: most bad versions are bad from the start. A part is on the windows after a change of
weight, when load, caches and users change. The rest is on all windows and falls with time: however long a release
waits, something is left to bet. The reasons are in docs/decisions/0023-prior-on-the-start-of-harm.md.
"""

import math
from functools import lru_cache

FIRST, CHANGES, EVER = 0.5, 0.15, 0.35  # the three parts; their sum is 1
SPREAD = 100  # windows until 1 - 1/sqrt(2) of `EVER` is spent


Priors = tuple[tuple[float, float], ...]  # by window, see `Starts.spend`


class Starts:
    """The prior of one stream, spent window by window. The spent part and the rest always sum to 1."""

    def __init__(self, *, first_only: bool = False) -> None:
        """
        Args:
            first_only: harm is present from the first window, or never.
        """
        self._parts = (1.0, 0.0, 0.0) if first_only else (FIRST, CHANGES, EVER)
        self._windows = self._changes = 0
        self._is_changed = False

    def weight_changed(self) -> None:
        """Note that the coming windows have another canary weight. Call this before their counts are known."""
        self._is_changed = True

    def spend(self) -> tuple[float, float]:
        """Spend the coming window's prior: the log prior of harm that begins in it, and that of all later harm."""
        is_change = self._is_changed and self._windows > 0
        self._changes += is_change
        self._is_changed = False
        self._windows += 1
        return _spent(self._parts, self._windows, self._changes, is_change)

    def ahead(self, windows: int) -> Priors:
        """What `spend` will return for each of the next `windows` windows."""
        return _ahead(self._parts, self._windows, self._changes, self._is_changed and self._windows > 0, windows)

    def skip(self, windows: int) -> None:
        """Spend this many windows."""
        if windows:
            self._changes += self._is_changed and self._windows > 0
            self._is_changed = False
            self._windows += windows

    def log_next(self) -> float:
        """The first result of `spend`."""
        return self.spend()[0]

    @property
    def log_left(self) -> float:
        """Log prior of harm that begins later than the windows so far."""
        return _log_after(self._parts, self._windows, self._changes)


# Cached, because all streams of a tick ask for the same numbers.


@lru_cache(maxsize=16)
def _spent(parts: tuple[float, float, float], windows: int, changes: int, is_change: bool) -> tuple[float, float]:
    """What `Starts.spend` returns for window number `windows`, from 1."""
    first, of_changes, ever = parts
    now, then = _left(windows - 1), _left(windows)
    prior = ever * (now * then) ** 2 / ((now + then) * SPREAD)  # ever x (now - then), without cancellation
    if windows == 1:
        prior += first
    elif is_change:
        prior += of_changes * 2 / ((changes + 1) * (changes + 2))
    return _log(prior), _log_after(parts, windows, changes)


@lru_cache(maxsize=16)
def _ahead(parts: tuple[float, float, float], windows: int, changes: int, is_change: bool, ahead: int) -> Priors:
    changes += is_change
    return tuple(_spent(parts, windows + n, changes, is_change and n == 1) for n in range(1, ahead + 1))


def _log_after(parts: tuple[float, float, float], windows: int, changes: int) -> float:
    first, of_changes, ever = parts
    return _log((0.0 if windows else first) + of_changes * 2 / (changes + 2) + ever * _left(windows))


def _left(windows: int) -> float:
    """Share of `EVER` that is left for harm that begins after this many windows."""
    return math.sqrt(SPREAD / (windows + SPREAD))


def _log(prior: float) -> float:
    return math.log(prior) if prior else -math.inf
