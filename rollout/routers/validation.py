"""Refuses splits that no data plane can serve, so that every router refuses the same ones."""

from rollout.errors import RouterRefused
from rollout.interfaces import Split


def check_split(split: Split) -> None:
    """Raise RouterRefused when `split` contradicts itself."""
    saw = f"{split.canary_percent:g} % to {split.canary.tag if split.canary else 'no canary'}, mirror={split.mirror}"
    if not 0 <= split.canary_percent <= 100:
        raise RouterRefused("the canary's weight is not a percentage", saw=saw, do="ask for 0 to 100")
    if split.canary is None:
        if split.canary_percent or split.mirror:
            raise RouterRefused(
                "a split sends traffic to a canary that it does not name", saw=saw, do="name the canary"
            )
    elif split.canary.tag == split.stable.tag:
        raise RouterRefused("stable and canary are the same version", saw=saw, do="release another version")
