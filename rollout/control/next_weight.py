"""The canary's next share of the traffic: what the judge is asked about, and what all of it must wait for."""

import math

from rollout.judge import Judgement
from rollout.ledger.state import Phase, Release
from rollout.spec import AUTO_START_PERCENT

LAST_COMPARED_PERCENT = 50  # above it too little stable traffic is left to compare with
AUTO_GROWTH = 1.05  # smallest growth of the weight that is worth an automatic step


def asked_weight(release: Release) -> float | None:
    """The canary share, 0-1, that the judge is asked to allow; None at 100 %, where no step is left."""
    if release.phase is not Phase.STEPPING or release.is_last_step:
        return None
    if release.spec.steps != "auto":
        return release.weight_at(release.step + 1) / 100
    return (AUTO_START_PERCENT if release.step < 0 else least_automatic(release)) / 100


def lacks_improvement(release: Release, judgement: Judgement) -> bool:
    """Whether all the traffic, or the promotion, must wait for proof that the canary is better."""
    return release.spec.require == "better" and not judgement.is_better and asked_weight(release) in (None, 1.0)


def least_automatic(release: Release) -> float:
    """The smallest automatic step up, percent; the judge is asked about this one."""
    if release.weight_percent >= LAST_COMPARED_PERCENT:
        return 100
    return min(math.ceil(100 * AUTO_GROWTH * release.weight_percent) / 100, LAST_COMPARED_PERCENT)
