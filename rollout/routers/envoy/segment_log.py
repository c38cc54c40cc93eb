"""Values of a header that are no segments yet, as the gateway writes them; what was read is dropped."""

import os
from pathlib import Path

from pydantic import BaseModel, ValidationError

from rollout.errors import SourceUnreachable
from rollout.signals.segments import Asked

_READ_BYTES = 2**20  # at one time; of more a part is enough to find what comes often


class GatewaySegments:
    """A SegmentLog of Envoy's file access logger.

    Args:
        path: the file that Envoy appends to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, version: str) -> list[Asked]:
        """See `SegmentLog`. The gateway of an earlier version writes none."""
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
    caller: str | None = None  # a gateway of an earlier version does not say


def _parsed(line: bytes) -> _Line | None:
    try:
        return _Line.model_validate_json(line)
    except ValidationError:
        return None  # a line of which a part is not written yet


def _unreadable(error: OSError) -> SourceUnreachable:
    return SourceUnreachable(
        "the gateway's log of segments cannot be read",
        saw=str(error),
        do="check that the gateway runs (`kanaria status`) and who owns the file",
    )
