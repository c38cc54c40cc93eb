"""How Kanaria starts Python for itself."""

import sys


def own_module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of this installation, whatever lies in the folder where it is started.

    Python would look there first, and a user's `service.py` or `monitoring/` would be imported in place of ours.
    """
    return [sys.executable, "-P", "-m", name, *arguments]
