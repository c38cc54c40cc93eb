"""Reads the gateway's log of header values that are not segments yet. Lines are deleted once read."""

import os
from pathlib import Path

from pydantic import BaseModel, ValidationError

from rollout.errors import SourceUnreachable
from rollout.signals.segments import Asked

_READ_BYTES = 2**20  # read at a time; of a larger log, a part is enough to find frequent values


class GatewaySegments:
    """A SegmentLog that reads the file of Envoy's access logger.

    Args:
        path: the file to which Envoy appends.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, version: str) -> list[Asked]:
        """See `SegmentLog`. A gateway of an earlier version writes no such log."""
        try:
            with self._path.open("rb") as file:
                lines = file.read(_READ_BYTES).splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(error) from error
        self.clear()
        found = (line for text in lines if (line := _parsed(text)) and line.version == version)
        return [Asked(line.value, line.caller or "") for line in found]

    def clear(self) -> None:
        """See `SegmentLog`. A line that Envoy appends meanwhile is lost."""
        try:
            if self._path.exists() and self._path.stat().st_size:
                os.truncate(self._path, 0)
        except OSError as error:
            raise _unreadable(error) from error


class _Line(BaseModel):
    version: str | None
    value: str
    caller: str | None = None  # a gateway of an earlier version does not log it


def _parsed(line: bytes) -> _Line | None:
    try:
        return _Line.model_validate_json(line)
    except ValidationError:
        return None  # a part of the line is not written yet


def _unreadable(error: OSError) -> SourceUnreachable:
    return SourceUnreachable(
        "the gateway's log of segments cannot be read",
        saw=str(error),
        do="check that the gateway runs (`kanaria status`) and who owns the file",
    )
