"""The two files that control Envoy: a discovery response each, replaced in one step, even on a full disk.

A file that cannot be read, or is not in the format of `write_resources`, counts as absent. This module imports little,
because Envoy's start waits for it.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollout import room

if TYPE_CHECKING:
    from rollout.routers.envoy.api import Resource


def write_resources(path: Path, resources: "Sequence[Resource]") -> str:
    """Replace the file at `path` in one step. Returns the version that Envoy will report. Raises OSError."""
    version = hashlib.sha256(json.dumps(resources).encode()).hexdigest()[:16]
    room.replace(path, json.dumps({"version_info": version, "resources": resources}, indent=1))
    return version


def read_resources(path: Path) -> "tuple[str, list[Resource]] | None":
    """The version and the resources in the file at `path`; None if it cannot be used."""
    try:
        response = json.loads(path.read_bytes())
    except (OSError, ValueError):  # ValueError: the file is cut, empty, not JSON or not text
        return None
    if not isinstance(response, dict):
        return None
    version, resources = response.get("version_info"), response.get("resources")
    if isinstance(version, str) and isinstance(resources, list) and all(map(_is_named, resources)):
        return version, resources
    return None


def saved_resources(path: Path) -> "list[Resource] | None":
    """The resources last written to `path`, or to its spare if it was damaged; None if neither can be used."""
    found = read_resources(path) or read_resources(room.spare_of(path))
    return found[1] if found else None


def are_usable(resources: "Sequence[Resource]", clusters: Collection[str]) -> bool:
    """Whether `resources` are one route table that sends requests only to `clusters`."""
    try:
        (table,) = resources
        matches = [route["match"] for route in table["virtual_hosts"][0]["routes"]]
        named = set(_clusters_named(resources))
    except (LookupError, TypeError, ValueError):
        return False
    return bool(matches) and named.issubset(clusters)


def _clusters_named(found: Any) -> Iterator[str]:
    """The names of all clusters to which a part of a route table sends requests."""
    if isinstance(found, list):
        for one in found:
            yield from _clusters_named(one)
    elif isinstance(found, dict):
        for key, value in found.items():
            if key == "cluster":
                yield str(value)
            elif key == "weighted_clusters":
                yield from (str(one["name"]) for one in value["clusters"])
            else:
                yield from _clusters_named(value)


def _is_named(resource: object) -> bool:
    return isinstance(resource, dict) and isinstance(resource.get("name"), str)
