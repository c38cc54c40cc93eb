"""Where the results of drift reports lie in the state folder."""

from pathlib import Path

from kanaria.settings import Settings
from kanaria.stack.bentos import process_name
from monitoring.drift.result import Kind


def result_path(settings: Settings, kind: Kind, version: str | None = None) -> Path:
    """Where the newest result lies; its page beside it has the same name.

    Args:
        version: for the data drift of another version than stable.
    """
    of_version = f"-{process_name(version)}" if version else ""
    return settings.drift / f"{kind}{of_version}.json"
