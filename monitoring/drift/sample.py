"""A random sample of the prediction log, cheaply: the log may hold millions of rows, of which a report needs thousands.

Line ends are counted in all segments of the period, so that every request has the same chance, and only the
lines that were drawn are parsed. The segments are searched by time, not read for it.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from monitoring.drift.column import Column, Values
from monitoring.drift.errors import NoLog
from monitoring.predictions import COLUMNS_FILE, OWN_REQUESTS, Columns, Line, parse_line

_CHUNK_BYTES = 8 * 1024 * 1024
_LINES_AT_ONCE = 64  # a line may hold a thousand rows
_TIME_BYTES = 40  # a line begins with its time
TAKEN = ("label", "confidence", "error", "rest")  # columns that are no features; one called so is `feature.NAME`
_PREFIX = b'{"at_s":'


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of one version, drawn at random from a period."""

    version: str
    model: str  # tag of the model that answered
    logged_requests: int  # in the period
    logged_rows: int  # likewise; an estimate unless all were read
    at_s: NDArray[np.float64]  # of each row
    request: NDArray[np.int64]  # of each row, its request
    values: Mapping[str, Values]  # fields of the answer and plain features, by name

    def __len__(self) -> int:
        return len(self.at_s)

    @property
    def columns(self) -> dict[str, Column]:
        return {name: Column(values, self.request) for name, values in self.values.items()}

    def take(self, rows: NDArray[np.int64]) -> "Sample":
        """The same with only `rows`, by their place."""
        values = {name: column[rows] for name, column in self.values.items()}
        return replace(self, at_s=self.at_s[rows], request=self.request[rows], values=values)

    def at_most(self, rows: int, seed: int) -> "Sample":
        """At most so many rows, drawn at random."""
        if len(self) <= rows:
            return self
        return self.take(np.sort(np.random.default_rng(seed).choice(len(self), rows, replace=False)))


@dataclass(frozen=True, slots=True)
class VersionLog:
    """Where one version's log lies, and what its columns.json says."""

    folder: Path
    columns: Columns


@dataclass(frozen=True, slots=True)
class _Segment:
    path: Path
    starts: NDArray[np.int64]  # of the lines that fall into the period, bytes; and the end of the last

    def __len__(self) -> int:
        return len(self.starts) - 1


def version_logs(folder: Path) -> dict[str, VersionLog]:
    """The log of each version, by tag. Raises NoLog when there is none."""
    found: dict[str, VersionLog] = {}
    for path in sorted(folder.glob(f"*/{COLUMNS_FILE}")):
        with suppress(OSError, ValidationError):  # of another format
            columns = Columns.model_validate_json(path.read_bytes())
            found[columns.version] = VersionLog(path.parent, columns)
    if not found:
        raise NoLog(
            "there is no prediction log",
            saw=f"nothing in {folder}",
            do="send some requests first, and see that KANARIA_PREDICTION_LOG_MB is not 0",
        )
    return found


def draw(folder: Path, version: str, since_s: float, until_s: float, *, rows: int, seed: int = 0) -> Sample:
    """Draw about `rows` rows that `version` answered in a period, all of them where there are no more.

    Args:
        folder: the log of all versions, `predictions/` in the state folder.
        since_s, until_s: the period, Unix seconds.
        seed: the same log and seed give the same sample.

    Raises: NoLog when `version` never wrote one.
    """
    logs = version_logs(folder)
    if version not in logs:
        raise NoLog(
            f"there is no prediction log of {version}",
            saw=f"logs of {', '.join(sorted(logs))}",
            do="correct the tag, or send that version some requests",
        )
    log = logs[version]
    segments = [found for path in sorted(log.folder.glob("*.jsonl")) if (found := _segment(path, since_s, until_s))]
    logged = sum(map(len, segments))
    order = np.random.default_rng(seed).permutation(logged)
    lines: list[Line] = []
    read = read_rows = 0
    while read < logged and read_rows < rows:
        drawn = np.sort(order[read : read + _LINES_AT_ONCE])
        read += len(drawn)
        for line in _lines(segments, drawn):
            if since_s <= line.at_s < until_s and not line.request_id.startswith(OWN_REQUESTS):
                lines.append(line)
                read_rows += len(line.rows)
    per_read = logged / read if read else 0.0
    sample = _sample(log.columns, lines, round(len(lines) * per_read), round(read_rows * per_read))
    return sample.at_most(rows, seed)


def _segment(path: Path, since_s: float, until_s: float) -> _Segment | None:
    """Where the lines of a period begin; None when there are none. The writer may go on, or remove the file."""
    with suppress(FileNotFoundError):
        if path.stat().st_mtime < since_s or _began_s(path) >= until_s:
            return None
        with path.open("rb") as file:
            ends = [np.zeros(1, np.int64)]
            offset = 0
            while chunk := file.read(_CHUNK_BYTES):
                ends.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + offset + 1)
                offset += len(chunk)
            starts = np.concatenate(ends)  # what comes after the last line end is not finished

            def at_s(line: int) -> float:
                file.seek(int(starts[line]))
                return _time_of(file.read(_TIME_BYTES))

            lines = range(len(starts) - 1)
            first = bisect_left(lines, since_s, key=at_s)
            last = bisect_left(lines, until_s, lo=first, key=at_s)
        return _Segment(path, starts[first : last + 1]) if last > first else None
    return None


def _began_s(path: Path) -> float:
    began, _, _ = path.name.partition("-")
    return int(began) / 1000 - 1 if began.isdecimal() else 0.0  # its first rows waited up to a moment for it


def _time_of(text: bytes) -> float:
    """When a line was written; a line that does not say so is sorted last, where it does no harm."""
    number = text.removeprefix(_PREFIX).partition(b",")[0]
    try:
        return float(number)
    except ValueError:
        return float("inf")


def _lines(segments: list[_Segment], drawn: NDArray[np.int64]) -> Iterator[Line]:
    """Read the lines with these numbers, counted over all segments, in rising order."""
    first = 0
    for segment in segments:
        own = drawn[(drawn >= first) & (drawn < first + len(segment))] - first
        first += len(segment)
        with suppress(FileNotFoundError), segment.path.open("rb") as file:
            for number in own.tolist():
                begin, end = int(segment.starts[number]), int(segment.starts[number + 1])
                file.seek(begin)
                if line := parse_line(file.read(end - begin)):
                    yield line


def _sample(columns: Columns, lines: list[Line], requests: int, logged_rows: int) -> Sample:
    sizes = [len(line.rows) for line in lines]
    answers = answer_columns([answer for line in lines for answer in line.answers])
    features = feature_columns([row[: len(columns.features)] for line in lines for row in line.rows], columns.features)
    return Sample(
        version=columns.version,
        model=columns.model,
        logged_requests=requests,
        logged_rows=logged_rows,
        at_s=np.repeat([line.at_s for line in lines], sizes),
        request=np.repeat(np.arange(len(lines)), sizes),
        values=answers | features,
    )


def feature_columns(rows: Sequence[Sequence[float]], names: Sequence[str]) -> dict[str, Values]:
    """Features by name, as the model saw them: of single precision, whatever the text they came in.

    Raises: ValueError unless there is a value for each name in every row.
    """
    matrix = np.array(rows, np.float32).astype(np.float64).reshape(len(rows), len(names))
    return {f"feature.{name}" if name in TAKEN else name: matrix[:, place] for place, name in enumerate(names)}


def answer_columns(answers: Sequence[Mapping[str, object]]) -> dict[str, Values]:
    """The fields of some answers, by name, but for those that the model leaves open: a number has no confidence."""
    columns = {name: [answer[name] for answer in answers] for name in (answers[0] if answers else ())}
    return {name: as_column(values) for name, values in columns.items() if None not in values}


def as_column(values: Sequence[object]) -> Values:
    """Numbers as numbers, everything else as words."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return np.array(values, np.float64)
    return np.array([str(value) for value in values], np.str_)
