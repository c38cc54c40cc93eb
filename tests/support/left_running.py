"""Processes of stacks that a test has left behind."""

from contextlib import suppress

import psutil

MARK = "KANARIA_KEPT_IN"  # `kanaria.stack.processes` has it, too; it is not imported where there is no stack


def processes_under(folder: str) -> list[str]:
    """The command lines of processes that a keeper keeps for a state folder under `folder`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK, "").startswith(f"{folder}/") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found
