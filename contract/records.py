"""The base class of the JSON records in a model's folder, with readers and writers of one record per line."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

# What to do with a field that this Kanaria does not know: a newer one may have written the file.
Unknown = Literal["forbid", "ignore"]


class Record(BaseModel):
    """Base of every record in a model's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


RecordT = TypeVar("RecordT", bound=Record)


def read_lines(path: Path, record: type[RecordT], *, unknown: Unknown = "forbid") -> tuple[RecordT, ...]:
    """Read a file of JSON lines. Raises OSError; pydantic.ValidationError when a line is not a `record`."""
    with path.open("rb") as lines:
        return tuple(record.model_validate_json(line, extra=unknown) for line in lines)


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Write `records` as JSON lines."""
    path.write_text("".join(record.model_dump_json() + "\n" for record in records))
