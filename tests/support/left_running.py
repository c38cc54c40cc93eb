"""Processes of stacks that a test has left running."""

from contextlib import suppress

import psutil

MARK = "KANARIA_KEPT_IN"  # also in `kanaria.stack.processes`, which is not imported in tests without a stack


def processes_under(folder: str) -> list[str]:
    """The command lines of processes that a keeper supervises for a state folder under `folder`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK, "").startswith(f"{folder}/") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found
