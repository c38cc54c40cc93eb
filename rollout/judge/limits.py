"""Confidence limits of one share, from counts alone: how likely is this count, and how large may the true share be?

The exact limits hold for one sample whose size was fixed beforehand. To judge repeatedly, divide `alpha` or use
`upper_limit_at_any_time`. With a dispersion `phi`, n events are worth n / phi independent ones (Kish's design effect).
Sources: Clopper & Pearson 1934, Biometrika 26(4), 404-413; Robbins 1970, Ann. Math. Statist. 41(5), 1397-1409.
"""

import math

import scipy  # loads its parts on use: importing scipy.special takes as long as all other imports of a short command

from rollout.judge.types import Pair


def chance_of_as_many(seen: Pair, share: float, *, phi: float = 1.0) -> float:
    """Chance of at least `seen.bad` bad events among `seen.total`, each bad with probability `share`, 0 to 1."""
    if not seen.bad:
        return 1.0
    return float(scipy.special.betainc(seen.bad / phi, (seen.total - seen.bad) / phi + 1, share))


def upper_limit(seen: Pair, alpha: float, *, phi: float = 1.0) -> float:
    """Upper limit, 0 to 1: the true share is above it with a chance of at most `alpha`; 1 where nothing was seen."""
    if seen.bad == seen.total:
        return 1.0
    return float(scipy.special.betaincinv(seen.bad / phi + 1, (seen.total - seen.bad) / phi, 1 - alpha))


def lower_limit(seen: Pair, alpha: float, *, phi: float = 1.0) -> float:
    """Lower limit, 0 to 1: the true share is below it with a chance of at most `alpha`; 0 where nothing was bad."""
    if not seen.bad:
        return 0.0
    return float(scipy.special.betaincinv(seen.bad / phi, (seen.total - seen.bad) / phi + 1, alpha))


def upper_limit_at_any_time(seen: Pair, alpha: float, *, phi: float = 1.0) -> float:
    """Upper limit, 0 to 1: the true share is EVER above it with a chance of at most `alpha`, at any stopping time.

    It holds for samples whose size depends on their own events. The limit is the largest p that is not refuted by the
    mean, over shares q below p, of the likelihood ratio of q against p: for a true share of p or more each ratio has a
    mean of at most 1 (Ville's inequality). The weight of q is q^(-1/2), most of it near 0, where shares of failures
    are.
    """
    bad, good = seen.bad / phi, (seen.total - seen.bad) / phi
    if not good:
        return 1.0

    def log_evidence(share: float) -> float:
        below = float(scipy.special.betainc(bad + 0.5, good + 1, share))
        mean = math.log(0.5 * below) + float(scipy.special.betaln(bad + 0.5, good + 1)) - 0.5 * math.log(share)
        return mean - bad * math.log(share) - good * math.log1p(-share)

    # At the observed share no q is likelier; above it the evidence grows once it exceeds 1. Bisection is faster than
    # importing scipy.optimize.
    low, high = bad / (bad + good), 1.0
    while low < (middle := (low + high) / 2) < high:
        if log_evidence(middle) < -math.log(alpha):
            low = middle
        else:
            high = middle
    return high


def events_needed(seen: Pair, limit: float, alpha: float) -> float:
    """About how many more events until `upper_limit_at_any_time` is at most `limit`, if the share stays as it is.

    inf where the observed share is not below the limit. An estimate, from the large-sample form of the upper limit.
    """
    share = seen.bad / seen.total if seen.total else 0.0
    if share >= limit:
        return math.inf
    each = (1 - share) * math.log((1 - share) / (1 - limit)) + (share * math.log(share / limit) if share else 0.0)
    needed = -math.log(alpha) / each
    for _ in range(3):  # the price of the mean over many shares grows with the logarithm of the events
        needed = (-math.log(alpha) + max(0.0, math.log(needed) / 2 - 1.5)) / each
    return max(1.0, needed - seen.total)
