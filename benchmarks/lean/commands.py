"""CPU time of commands, with and without the measures that make them import less."""

import os
import resource
import subprocess
import sys
from pathlib import Path

COMMANDS = ("--help", "status", "why", "history", "pause", "validate rollout.yaml")
# As the commands were before: with garbage collection during imports, and httpx with its own command line.
_BEFORE = """
import contextlib, sys
from kanaria import lazy
lazy._no_collection = contextlib.nullcontext
sys.modules.pop("httpx._main", None)
from kanaria.cli import main
main()
"""
_NOW = "from kanaria.cli import main; main()"


def cpu_s(command: str, folder: Path, *, is_now: bool) -> float:
    """CPU seconds of one command in a folder without a stack.

    Its modules are read as bytecode, as those of an installed package; the very first run writes the bytecode.
    """
    (folder / "rollout.yaml").write_text("steps: [5, 100]\n")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", _NOW if is_now else _BEFORE, *command.split()],
        cwd=folder,
        env={**os.environ, "KANARIA_HOME": str(folder), "PYTHONDONTWRITEBYTECODE": ""},
        capture_output=True,
        check=False,  # without a stack, commands end with an error
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
