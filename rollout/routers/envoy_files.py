"""The two files through which Envoy is steered: a discovery response each, replaced by one rename."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from rollout.routers.envoy_resources import Resource


def write_resources(path: Path, resources: Sequence[Resource]) -> str:
    """Replace the file at `path` in one step and give the version that Envoy will report for it."""
    version = hashlib.sha256(json.dumps(resources).encode()).hexdigest()[:16]
    incoming = path.with_suffix(".incoming")
    incoming.write_text(json.dumps({"version_info": version, "resources": resources}, indent=1))
    incoming.replace(path)
    return version


def read_resources(path: Path) -> tuple[str, list[Resource]]:
    """The version and the resources in the file at `path`."""
    response = json.loads(path.read_text())
    return response["version_info"], response["resources"]
