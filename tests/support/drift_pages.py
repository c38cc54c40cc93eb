"""Evidently's pages.

The import happens at the first page, because it takes seconds in each process that collects tests.
"""

from pathlib import Path
from typing import Any

from kanaria.lazy import load
from monitoring.drift.compare import Comparison


def write_report(comparison: Comparison, html: Path, workspace: Path) -> Any:
    """See `monitoring.drift.evidently_report.write_report`."""
    return load("monitoring.drift.evidently_report:write_report")(comparison, html, workspace)
