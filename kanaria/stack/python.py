"""The command with which Kanaria starts its own modules."""

import sys


def own_module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of this installation, whatever the working directory contains.

    Without `-P`, Python would import a user's `service.py` or `monitoring/` from there in place of ours.
    """
    return [sys.executable, "-P", "-m", name, *arguments]
