"""Asks Prometheus's own `promtool` whether rule files are sound and do what their tests say."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from monitoring.errors import ToolMissing


def check_rules(files: Iterable[Path]) -> str | None:
    """What is wrong with rule files; None: nothing. Raises ToolMissing."""
    return _complaint("check", "rules", files)


def test_rules(files: Iterable[Path]) -> str | None:
    """Which promtool tests fail, and how; None: none. Raises ToolMissing."""
    return _complaint("test", "rules", files)


def _complaint(verb: str, what: str, files: Iterable[Path]) -> str | None:
    promtool = shutil.which("promtool")
    if promtool is None:
        raise ToolMissing(
            "the rules cannot be checked without promtool",
            saw="no `promtool` on the PATH",
            do="install Prometheus, which brings it (Debian: apt-get install prometheus)",
        )
    done = subprocess.run([promtool, verb, what, *map(str, files)], capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}".strip() if done.returncode else None
