"""The share of requests in the steps that both versions answer, as a sentence for people who watch a release."""

from rollout.compare import canary_load
from rollout.format import share
from rollout.ledger.state import Release


def compared_sentence(release: Release) -> str | None:
    """What is compared now, and the canary's load because of it; None where nothing is, as in the shadow step."""
    compare = release.compare_percent / 100
    if not compare:
        return None
    load = share(canary_load(compare, release.live_percent / 100))
    return (
        f"Up to {share(compare)} of each version's requests are also sent to the other: copies included, "
        f"{release.canary} answers up to {load} of all requests."
    )
