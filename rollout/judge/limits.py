"""Exact limits of one share, from counts alone: how likely is it to show so many, how large may it be?

`decide` asks it for the absolute guard, `watch` for what stable is known to do. Knows nothing of a second version, of
windows or of repeated looks. A dispersion `phi` makes n events worth n / phi independent ones (Kish's design effect).
Source: Clopper & Pearson 1934, Biometrika 26(4), 404-413.
"""

import scipy  # its parts load on use: scipy.special takes as long as all else that a short command imports

from rollout.judge.types import Pair


def chance_of_as_many(seen: Pair, share: float, *, phi: float = 1.0) -> float:
    """Chance of at least `seen.bad` bad events of `seen.total`, each bad with probability `share`, 0 to 1."""
    if not seen.bad:
        return 1.0
    return float(scipy.special.betainc(seen.bad / phi, (seen.total - seen.bad) / phi + 1, share))


def upper_limit(seen: Pair, alpha: float, *, phi: float = 1.0) -> float:
    """The share, 0 to 1, that the true one exceeds with a chance of at most `alpha`; 1 where nothing was seen."""
    if seen.bad == seen.total:
        return 1.0
    return float(scipy.special.betaincinv(seen.bad / phi + 1, (seen.total - seen.bad) / phi, 1 - alpha))


def lower_limit(seen: Pair, alpha: float, *, phi: float = 1.0) -> float:
    """The share, 0 to 1, that the true one falls short of with a chance of at most `alpha`; 0 where nothing was bad."""
    if not seen.bad:
        return 0.0
    return float(scipy.special.betaincinv(seen.bad / phi, (seen.total - seen.bad) / phi + 1, alpha))
