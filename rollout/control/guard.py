"""The guard: an absolute limit on the canary's error ratio, independent of stable's."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from rollout.format import share
from rollout.judge import OwnNoise, Pair, Window
from rollout.judge.limits import chance_of_as_many
from rollout.ledger.state import Release

_SHARED = 0.5  # of the limit
WINDOW_S = 30.0  # the guard counts the errors of this many last seconds


class RecentErrors:
    """The errors of both versions in the last `WINDOW_S`."""

    def __init__(self) -> None:
        self._windows: deque[tuple[float, Window]] = deque()  # each with the time at which it was added

    def add(self, windows: Iterable[Window], now_s: float, *, is_warming_up: bool = False) -> None:
        """Add new windows of any signals; forget what is too old at `now_s`, seconds on a steady clock.

        Args:
            is_warming_up: ignore the canary's counts in them.
        """
        for window in windows:
            if window.signal == "errors":
                judged = replace(window, canary=Pair(0, 0)) if is_warming_up else window
                self._windows.append((now_s, judged))
        while self._windows and self._windows[0][0] < now_s - WINDOW_S:
            self._windows.popleft()

    @property
    def stable(self) -> Pair:
        return sum((window.stable for _, window in self._windows), Pair(0, 0))

    @property
    def canary(self) -> Pair:
        return sum((window.canary for _, window in self._windows), Pair(0, 0))


def is_over(release: Release, canary: Pair, stable: Pair) -> bool:
    """Whether the canary's true error ratio is over the plan's limit.

    If the canary's requests fail independently with a probability of at most the limit, the chance that it is EVER
    found over the limit is at most `alpha`, however long the release is held. The canary's own noise tempers the
    evidence, as far as it can change a ratio near the limit.

    Args:
        release: the release with its plan and noise.
        canary: the canary's recent errors.
        stable: stable's errors in the same time.
    """
    if not canary.bad:
        return False
    spec = release.spec  # the limit is the plan's `guards.error_ratio`; its default is in rollout/spec.py
    limit, share = spec.guards.error_ratio, canary.total / (canary.total + stable.total)
    phi = release.noise.get("errors", OwnNoise()).of_one(share, limit)
    return chance_of_as_many(canary, limit, phi=phi) <= spec.alpha * part_of_reading(release)


def part_of_reading(release: Release) -> float:
    """The part of `alpha` that the present reading may spend: the parts of any number of readings sum to at most 1.

    With N readings up to all deadlines, reading n gets the amount by which 1 / sqrt(1 + 3 n / N) falls. Each of the
    first tenth of N gets at least its share of an even split over N, and something is left after any hold.
    """
    spec = release.spec
    unit = (spec.windows_at_most + spec.watch / spec.window) / 3
    before = unit + max(0, release.readings - 1)
    now, then = (math.sqrt(unit / readings) for readings in (before, before + 1))
    return unit / (before * (before + 1) * (now + then))  # now - then, without cancellation


def is_stable_bad(release: Release, stable: Pair) -> bool:
    """Whether stable is over the limit as well. This needs no proof: a freeze does less harm than a false rollback."""
    return stable.bad > 0 and stable.bad >= release.spec.guards.error_ratio * stable.total


def is_shared(release: Release, stable: Pair) -> bool:
    """Whether stable fails at least half as often as the limit allows: then the cause may have hit both versions.

    A burst that lifts both versions over the limit shows by chance in one of them first.
    """
    return stable.bad > 0 and stable.bad >= _SHARED * release.spec.guards.error_ratio * stable.total


def reason(release: Release, canary: Pair) -> str:
    """Why the guard rolls back, in words."""
    limit = release.spec.guards.error_ratio
    return f"{canary.bad} of the last {canary.total} canary requests failed; the guard allows {share(limit)}"
