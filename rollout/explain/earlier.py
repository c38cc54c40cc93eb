"""What a release knows of the one before of the same two versions, in words."""

from rollout.ledger.events import EarlierTry


def words(earlier: EarlierTry) -> str:
    """One clause, without its subject: the release."""
    if earlier.has_failed:
        return (
            f"starts without the evidence of release {earlier.release}, on which that one failed: whoever tries it "
            "again says that the cause was elsewhere"
        )
    most = max(earlier.carried, key=lambda signal: earlier.carried[signal])
    strength = f"log e {earlier.log_e:.1f}"
    return f"carries the evidence of release {earlier.release} against it: {strength}, most of it on `{most}`"
