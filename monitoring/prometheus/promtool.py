"""Checks and tests rule files with `promtool`, which comes with Prometheus."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from monitoring.errors import ToolMissing


def check_rules(files: Iterable[Path]) -> str | None:
    """What is wrong with the rule files; None: nothing. Raises ToolMissing."""
    return _complaint("check", "rules", files)


def test_rules(files: Iterable[Path]) -> str | None:
    """Which promtool tests fail, and how; None: all pass. Raises ToolMissing."""
    return _complaint("test", "rules", files)


def _complaint(verb: str, what: str, files: Iterable[Path]) -> str | None:
    promtool = shutil.which("promtool")
    if promtool is None:
        raise ToolMissing(
            "the rules cannot be checked without promtool",
            saw="no `promtool` on the PATH",
            do="install Prometheus, which includes it (Debian: apt-get install prometheus)",
        )
    done = subprocess.run([promtool, verb, what, *map(str, files)], capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}".strip() if done.returncode else None
