"""Random traffic of users whom a hash keeps on one side: some users fail repeatedly on either version.

This module routes users; `rollout.simulate.traffic` routes single requests. It does not depend on judges.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rollout.judge import Pair, Window
from rollout.signals.sticky_users import UserFailure

STABLE, CANARY = "model:stable", "model:canary"

Seed = int | tuple[int, ...]
Ratios = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Users:
    """The users, who all send equally many requests and fail equally often, unless some are broken or ratios vary."""

    number: int
    error_ratio: float = 0.01  # of all requests together, on stable
    broken_share: float = 0.0  # of the users; only these fail
    spread: float = 0.0  # squared coefficient of variation of the users' own error ratios (Beta-distributed)

    def ratios(self, rng: np.random.Generator) -> Ratios:
        """The error ratio of each user on stable; shape (number,)."""
        if self.broken_share:
            broken = rng.permutation(self.number) < round(self.number * self.broken_share)
            return np.where(broken, self.error_ratio / self.broken_share, 0.0)
        if self.spread:
            concentration = (1 - self.error_ratio) / (self.error_ratio * self.spread) - 1
            alpha = self.error_ratio * concentration
            return rng.beta(alpha, concentration - alpha, self.number)
        return np.full(self.number, self.error_ratio)


@dataclass(frozen=True, slots=True)
class StickyScenario:
    """The traffic of one kind of release with sticky users."""

    users: Users
    weights: tuple[tuple[float, float], ...]  # (canary share of the users, seconds), one after another
    harm: float = 1.0  # multiplies each user's error ratio on canary, up to 1
    rps: float = 20.0
    window_s: float = 5.0


def sticky_traffic(scenario: StickyScenario, seed: Seed) -> Iterator[tuple[Window, list[UserFailure]]]:
    """One release: the errors of each window, and the users who had them. The same arguments give the same release."""
    rng = np.random.default_rng(seed)
    on_stable = scenario.users.ratios(rng)
    on_canary = np.minimum(1.0, scenario.harm * on_stable)
    place = rng.random(scenario.users.number)  # a user is on canary while the weight is above this
    keys = [number.to_bytes(4, "big") for number in range(scenario.users.number)]
    end_s = 0.0
    for weight, seconds in scenario.weights:
        for _ in range(round(seconds / scenario.window_s)):
            end_s += scenario.window_s
            senders = rng.integers(scenario.users.number, size=rng.poisson(scenario.rps * scenario.window_s))
            is_canary = place[senders] < weight
            has_failed = rng.random(len(senders)) < np.where(is_canary, on_canary[senders], on_stable[senders])
            failures = [
                UserFailure(end_s, CANARY if canary else STABLE, keys[user])
                for user, canary in zip(senders[has_failed], is_canary[has_failed], strict=True)
            ]
            canary = Pair(int((has_failed & is_canary).sum()), int(is_canary.sum()))
            stable = Pair(int(has_failed.sum()) - canary.bad, len(senders) - canary.total)
            yield Window(end_s, scenario.window_s, "errors", stable, canary), failures
