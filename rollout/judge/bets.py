"""How the stake of PASS is spread over its bets. Called by `bound.ExcessBound`, which keeps their evidence.

The proof holds for any spread that is fixed before the release, and for one of its own for every excess: which bets
grow fastest depends on the excess to refute and on what stable fails anyway. Nobody knows stable's failures to come, so
half of the stake is spread evenly over bets for everything; what stable failed before the release places the other
half. Where it misleads, that costs at most log 2 of some 5 that PASS needs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

from rollout.judge.types import Pair

_EVEN = (0.03, 0.1, 0.3, 0.8, 2.0, 6.0)


@dataclass(frozen=True, slots=True)
class Stakes:
    """What is bet on while an excess from `low` to `high` is to be refuted."""

    low: float
    high: float
    logs: Mapping[int, float]  # number of a bet -> log of the stake on it


@dataclass(frozen=True, slots=True)
class Bets:
    """Every theta that is bet on, and the stakes, from the largest excess, 1, down to -1."""

    thetas: tuple[float, ...]
    stakes: tuple[Stakes, ...]


EVEN_BETS = Bets(_EVEN, (Stakes(-1.0, 1.0, dict.fromkeys(range(len(_EVEN)), -math.log(len(_EVEN)))),))


def bets_for(risk_budget: float, known: Pair) -> Bets:
    """Bets of a release whose stable version failed as `known` before; even ones where nothing is known.

    A step to weight w asks for an excess of `risk_budget` / w. Between 100 %, 50 %, 25 %, ... the bet changes.
    """
    if not known.total:
        return EVEN_BETS
    base = (known.bad + 0.3) / (known.total + 0.6)
    weights = [1.0]
    while risk_budget / weights[-1] < 0.5:
        weights.append(weights[-1] / 2)
    lows = [risk_budget / weight for weight in weights]
    tuned = [best_theta(low, base, weight / 2) for low, weight in zip(lows, weights, strict=True)]
    even = dict.fromkeys(range(len(_EVEN)), math.log(0.5 / len(_EVEN)))
    stakes = [
        Stakes(low, high, even | {number: math.log(0.5)})
        for number, low, high in zip(count(len(_EVEN)), [-1.0, *lows[1:]], [*lows[1:], 1.0], strict=False)
    ]
    return Bets((*_EVEN, *tuned), tuple(reversed(stakes)))


def best_theta(excess: float, base: float, weight: float) -> float:
    """The theta that grows fastest against `excess` when both versions fail at `base` and canary has share `weight`.

    Where the derivative of (1 - z) excess + base log(z) + base/o log(1 + (1 - z) o) is 0, z = exp(-theta) and
    o = weight/(1 - weight).
    """
    total = excess + base
    return -math.log(2 * base / (total + math.sqrt(total * total - 4 * excess * base * weight)))
