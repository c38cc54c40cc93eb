"""The canary's next share of the traffic: which weight the judge is asked about, and what 100 % must wait for."""

import math

from rollout.judge import Judgement
from rollout.ledger.state import Phase, Release
from rollout.spec import AUTO_START_PERCENT

LAST_COMPARED_PERCENT = 50  # above it, stable has too little traffic for a comparison
AUTO_GROWTH = 1.05  # the smallest growth factor that is worth an automatic step


def asked_weight(release: Release) -> float | None:
    """The canary share, 0-1, that the judge is asked to allow; None on the last step, where no step is left."""
    if release.phase is not Phase.STEPPING or release.is_last_step:
        return None
    if release.spec.steps != "auto":
        return release.weight_at(release.step + 1) / 100
    return (AUTO_START_PERCENT if release.step < 0 else least_automatic(release)) / 100


def lacks_improvement(release: Release, judgement: Judgement) -> bool:
    """Whether 100 % of the traffic, or the promotion, must wait for proof that the canary is better."""
    return release.spec.require == "better" and not judgement.is_better and asked_weight(release) in (None, 1.0)


def least_automatic(release: Release) -> float:
    """The weight of the smallest automatic step up, percent; the judge is asked about this weight."""
    if release.weight_percent >= LAST_COMPARED_PERCENT:
        return 100
    return min(math.ceil(100 * AUTO_GROWTH * release.weight_percent) / 100, LAST_COMPARED_PERCENT)
