"""Checks the gateway's files, then becomes Envoy: with a truncated route table, Envoy would answer every request 404.

It is a separate program that runs without Python's site packages, because requests wait for it whenever Envoy was
killed. Its arguments are the files of the clusters and of the routes, the routes of a gateway without a version, and
Envoy's command.
"""

import os
import sys
from pathlib import Path


def make_usable(clusters: Path, routes: Path, without_version: Path) -> None:
    """Replace a file that Envoy cannot use with its spare. If that is also damaged, every request is answered 503.

    Raises: OSError.
    """
    from rollout.routers.envoy.files import (  # noqa: PLC0415 - `main` first sets the import path
        are_usable,
        read_resources,
        saved_resources,
        write_resources,
    )

    served = saved_resources(clusters) or []
    if read_resources(clusters) is None:
        write_resources(clusters, served)
    names = {cluster["name"] for cluster in served}
    found = read_resources(routes)
    if found is None or not are_usable(found[1], names):
        saved = saved_resources(routes)
        usable = saved if saved is not None and are_usable(saved, names) else saved_resources(without_version)
        if usable is not None:
            write_resources(routes, usable)


def main() -> None:
    """Check the files, then start Envoy, whatever the check found."""
    sys.path.insert(0, str(Path(__file__).parents[3]))
    clusters, routes, without_version, *envoy = sys.argv[1:]
    try:
        make_usable(Path(clusters), Path(routes), Path(without_version))
    except Exception as error:  # noqa: BLE001 - whatever the error is, Envoy may still serve
        sys.stderr.write(f"the gateway's files could not be checked: {error!r}\n")
    os.execv(envoy[0], envoy)  # noqa: S606 - our own words, no shell


if __name__ == "__main__":
    main()
