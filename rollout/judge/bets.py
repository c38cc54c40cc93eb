"""How the mixture behind PASS spreads its stake over its bets.

The proof holds for any spread that is fixed before the release. Which bet grows fastest depends on the excess to refute
and on the error ratio of both versions. Future failures are unknown, so a quarter of the stake is spread evenly over
general-purpose bets. Stable's failures before the release place the rest on the bets that are best for steps to four
weights, each in proportion to the time that its step is expected to take.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

from rollout.judge.types import Pair

_EVEN = (0.03, 0.1, 0.3, 0.8, 2.0, 6.0)
_EVEN_SHARE = 0.25  # a misleading history costs at most log 4 of the log evidence of about 5 that PASS needs
_IN_SHADOW = 0.5  # the canary's share of the requests compared in the shadow step
_WEIGHTS = (1.0, 0.5, 0.25, 0.0625)


@dataclass(frozen=True, slots=True)
class Bets:
    """The thetas of the mixture, and the log of the stake on each; the stakes sum to 1."""

    thetas: tuple[float, ...]
    log_stakes: tuple[float, ...]


EVEN_BETS = Bets(_EVEN, tuple(repeat(-math.log(len(_EVEN)), len(_EVEN))))


def bets_for(risk_budget: float, known: Pair, excesses: Sequence[float] = ()) -> Bets:
    """Bets for a release whose stable version had `known` failures before it; even bets where nothing is known.

    Args:
        risk_budget: share of requests; a step to weight w must prove an excess of at most `risk_budget` / w.
        known: stable's failures and requests before the release.
        excesses: further excesses to prove; those below `risk_budget` are proven in the shadow step.
    """
    if not known.total:
        return EVEN_BETS
    base = (known.bad + 0.3) / (known.total + 0.6)
    steps = [(risk_budget / weight, weight / 2) for weight in _WEIGHTS if risk_budget < weight]
    steps += [(excess, _IN_SHADOW) for excess in excesses if excess < risk_budget]
    thetas = [best_theta(excess, base, weight) for excess, weight in steps]
    times = [
        1 / (weight * _growth(theta, excess, base, weight))
        for theta, (excess, weight) in zip(thetas, steps, strict=True)
    ]
    stakes = [*repeat(_EVEN_SHARE / len(_EVEN), len(_EVEN)), *((1 - _EVEN_SHARE) * time / sum(times) for time in times)]
    return Bets((*_EVEN, *thetas), tuple(math.log(stake) for stake in stakes))


def best_theta(excess: float, base: float, weight: float) -> float:
    """The theta whose bet grows fastest against `excess`: there the derivative of `_growth` is 0.

    Args:
        excess: of the bad ratio, to be refuted.
        base: bad ratio of both versions.
        weight: canary's share of the requests, above 0 and below 1.
    """
    total = excess + base
    return -math.log(2 * base / (total + math.sqrt(total * total - 4 * excess * base * weight)))


def _growth(theta: float, excess: float, base: float, weight: float) -> float:
    """Expected growth of the log of a bet per canary request, see `bound`."""
    credit, odds = -math.expm1(-theta), weight / (1 - weight)
    return credit * excess - theta * base + base / odds * math.log1p(credit * odds)
