"""What a release took over from the previous release of the same two versions, in words."""

from rollout.ledger.events import EarlierTry


def words(earlier: EarlierTry) -> str:
    """One clause without its subject, which is the release."""
    if earlier.has_failed:
        return (
            f"starts without the evidence on which release {earlier.release} failed: the person who tries it again "
            "says that the cause was elsewhere"
        )
    most = max(earlier.carried, key=lambda signal: earlier.carried[signal])
    strength = f"log e {earlier.log_e:.1f}"
    return f"starts with the evidence of release {earlier.release} against it: {strength}, most of it from `{most}`"
