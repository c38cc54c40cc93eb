"""Refuses splits that no data plane can serve, so that every router refuses the same ones."""

from rollout.errors import RouterRefused
from rollout.routers.router import Split


def check_split(split: Split) -> None:
    """Raise RouterRefused if `split` contradicts itself."""
    saw = f"{split.canary_percent:g} % to {split.canary.tag if split.canary else 'no canary'}, mirror={split.mirror}"
    if not 0 <= split.canary_percent <= 100:
        raise RouterRefused("the canary's weight is not a percentage", saw=saw, do="ask for 0 to 100")
    versions = split.versions
    for version in versions:
        if {backend.tag for backend in version.backends} != {version.tag}:
            raise RouterRefused(
                "some backends of a version belong to another version",
                saw=", ".join(f"{backend.tag} at {backend.url}" for backend in version.backends),
                do="give each version its own backends",
            )
    if split.canary is not None and split.fallback is not None:
        raise RouterRefused(
            "a split has a canary and a fallback",
            saw=f"canary {split.canary.tag}, fallback {split.fallback.tag}",
            do="leave the fallback out: stable and canary answer for each other",
        )
    if len({version.tag for version in versions}) < len(versions):
        raise RouterRefused(
            "two versions of a split are the same version",
            saw=", ".join(version.tag for version in versions),
            do="release another version",
        )
    if split.canary is None and (split.canary_percent or split.mirror):
        raise RouterRefused("a split sends traffic to a canary that it does not name", saw=saw, do="name the canary")
    if split.compare_percent and (split.canary is None or split.mirror or not 0 < split.canary_percent < 100):
        raise RouterRefused(
            "requests can be compared only while both versions answer some",
            saw=f"{saw}, {split.compare_percent:g} % compared",
            do="compare nothing in the shadow step, where everything is copied, or with a single version",
        )
    if not 0 <= split.compare_percent <= 100:
        raise RouterRefused(
            "the share of requests to compare is not a percentage",
            saw=f"{split.compare_percent:g} %",
            do="ask for 0 to 100",
        )
    if split.mirror and not split.stable.service.answers_whole:
        raise RouterRefused(
            "there is nothing to copy to a canary in the shadow step",
            saw=f"{split.stable.tag} has no route whose answers come as a whole",
            do="start with another step",
        )
