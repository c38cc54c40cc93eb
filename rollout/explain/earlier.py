"""What a release knows of the one before of the same two versions, in words."""

import math

from rollout.format import about
from rollout.ledger.events import EarlierTry

_MOST_LOG_E = math.log(1e12)  # a larger number says no more


def words(earlier: EarlierTry) -> str:
    """One clause, without its subject: the release."""
    if earlier.has_failed:
        return (
            f"starts without the evidence of release {earlier.release}, on which that one failed: whoever tries it "
            "again says that the cause was elsewhere"
        )
    most = max(earlier.carried, key=lambda signal: earlier.carried[signal])
    strength = about(math.exp(min(earlier.log_e, _MOST_LOG_E)))
    return f"carries the evidence of release {earlier.release} against it: E = {strength}, most of it on `{most}`"
