"""The manifests that `kanaria kubernetes render` writes, for the stand-ins of the engines."""

from typing import Any

import yaml

from kanaria.kubernetes import rendered
from kanaria.kubernetes.wanted import Engine, Gateway, Wanted


def manifests(engine: Engine, profile: str, *steps: int) -> dict[str, dict[str, Any]]:
    """The manifests by their kinds, and the templates by their names."""
    wanted = Wanted(
        tag="digits:v2",
        name="digits",
        namespace="shop",
        image="digits:v2",
        port=3000,
        replicas=10,
        profile=profile,
        engine=engine,
        steps=steps,
        gateway=Gateway("shop", "shop"),
    )
    found = [each for each in yaml.safe_load_all(rendered.text(wanted)) if each]
    return {each["kind"]: each for each in found} | {each["metadata"]["name"]: each for each in found[:2]}
