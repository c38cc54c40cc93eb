"""Paths of the results of drift reports in the state folder."""

from pathlib import Path

from kanaria.settings import Settings
from kanaria.stack.bentos import process_name
from monitoring.drift.result import Kind


def result_path(settings: Settings, kind: Kind, version: str | None = None) -> Path:
    """The path of the newest result. Its HTML page is in the same folder, under the same name.

    Args:
        version: a version other than stable, for its data drift.
    """
    of_version = f"-{process_name(version)}" if version else ""
    return settings.drift / f"{kind}{of_version}.json"
