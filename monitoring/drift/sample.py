"""Draws a random sample of the prediction log: the log may hold millions of rows, and a report needs thousands.

Line ends are counted in all segments of the period, so every request has the same chance. Only the drawn lines are
parsed. A binary search finds the period's lines in a segment. No link is followed, because versions can write to the
log's folder.
"""

import math
import os
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from contract import plain_files
from contract.model_files import MISSING, Value
from contract.plain_files import NotPlain
from contract.prediction_log import BEFORE_TIME, COLUMNS_FILE, OWN_REQUESTS, SEGMENTS, Columns, began_s
from monitoring.drift.column import Column, Values
from monitoring.drift.errors import NoLog
from monitoring.drift.prediction_log import Line, parse_line

_CHUNK_BYTES = 8 * 1024 * 1024
_SEED = 0
_LINES_AT_ONCE = 64  # a line may hold a thousand rows
_TIME_BYTES = 40  # a line begins with its time
TAKEN = ("label", "confidence", "error", "rest")  # other columns' names; a feature with such a name is `feature.NAME`


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of one version, drawn at random from a period."""

    version: str
    model: str  # tag of the model that answered
    logged_requests: int  # in the period
    logged_rows: int  # in the period; an estimate unless all were read
    at_s: NDArray[np.float64]  # when each row was answered, Unix seconds
    request: NDArray[np.int64]  # the request of each row
    values: Mapping[str, Values]  # fields of the answer and plain features, by name

    def __len__(self) -> int:
        return len(self.at_s)

    @property
    def columns(self) -> dict[str, Column]:
        return {name: Column(values, self.request) for name, values in self.values.items()}

    def take(self, rows: NDArray[np.int64]) -> "Sample":
        """The sample with only `rows`, given by index."""
        values = {name: column[rows] for name, column in self.values.items()}
        return replace(self, at_s=self.at_s[rows], request=self.request[rows], values=values)

    def at_most(self, rows: int) -> "Sample":
        """At most `rows` rows, drawn at random."""
        if len(self) <= rows:
            return self
        return self.take(np.sort(np.random.default_rng(_SEED).choice(len(self), rows, replace=False)))


@dataclass(frozen=True, slots=True)
class VersionLog:
    """The folder of one version's log, and its columns.json."""

    folder: Path
    columns: Columns


@dataclass(frozen=True, slots=True)
class _Segment:
    path: Path
    starts: NDArray[np.int64]  # byte offsets of the lines within the period, then the end of the last one

    def __len__(self) -> int:
        return len(self.starts) - 1


def version_logs(folder: Path) -> dict[str, VersionLog]:
    """The log of each version, by tag. Raises NoLog if there is none."""
    found: dict[str, VersionLog] = {}
    for path in sorted(folder.glob(f"*/{COLUMNS_FILE}")):
        with suppress(OSError, ValidationError):  # unreadable, a link, or in another format
            columns = Columns.model_validate_json(plain_files.read(path))
            found[columns.version] = VersionLog(path.parent, columns)
    if not found:
        raise NoLog(
            "there is no prediction log",
            saw=f"nothing in {folder}",
            do="send some requests first, and check that KANARIA_PREDICTION_LOG_MB is not 0",
        )
    return found


def draw(folder: Path, version: str, since_s: float, until_s: float, *, rows: int) -> Sample:
    """Draw at most `rows` rows that `version` answered in a period; all rows if there are no more.

    The same log gives the same sample.

    Args:
        folder: the log of all versions, `predictions/` in the state folder.
        since_s, until_s: the period, Unix seconds.

    Raises: NoLog if `version` never wrote a log.
    """
    logs = version_logs(folder)
    if version not in logs:
        raise NoLog(
            f"there is no prediction log of {version}",
            saw=f"logs of {', '.join(sorted(logs))}",
            do="correct the tag, or send requests to that version",
        )
    log = logs[version]
    segments = [found for path in sorted(log.folder.glob(SEGMENTS)) if (found := _segment(path, since_s, until_s))]
    logged = sum(map(len, segments))
    order = np.random.default_rng(_SEED).permutation(logged)
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
    return sample.at_most(rows)


def _segment(path: Path, since_s: float, until_s: float) -> _Segment | None:
    """Find the lines of a period; None if there are none. The writer may append or remove the file meanwhile."""
    with suppress(FileNotFoundError, NotPlain), plain_files.opened(path) as file:
        if os.fstat(file.fileno()).st_mtime < since_s or _earliest_s(path) >= until_s:
            return None
        ends = [np.zeros(1, np.int64)]
        offset = 0
        while chunk := file.read(_CHUNK_BYTES):
            ends.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + offset + 1)
            offset += len(chunk)
        starts = np.concatenate(ends)  # a line without a line end is unfinished and left out

        def at_s(line: int) -> float:
            file.seek(int(starts[line]))
            return _time_of(file.read(_TIME_BYTES))

        lines = range(len(starts) - 1)
        first = bisect_left(lines, since_s, key=at_s)
        last = bisect_left(lines, until_s, lo=first, key=at_s)
        return _Segment(path, starts[first : last + 1]) if last > first else None
    return None


def _earliest_s(path: Path) -> float:
    """A time before every line of a segment. The first rows may have waited a moment for the segment to open."""
    return (began_s(path.name) or 0.0) - 1


def _time_of(text: bytes) -> float:
    """The time of a line. A line without a time is sorted last, where it does no harm."""
    number = text.removeprefix(BEFORE_TIME).partition(b",")[0]
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
        with suppress(FileNotFoundError, NotPlain), plain_files.opened(segment.path) as file:
            for number in own.tolist():
                begin, end = int(segment.starts[number]), int(segment.starts[number + 1])
                file.seek(begin)
                if line := parse_line(file.read(end - begin)):
                    yield line


def _sample(columns: Columns, lines: list[Line], requests: int, logged_rows: int) -> Sample:
    sizes = [len(line.rows) for line in lines]
    answers = answer_columns([answer for line in lines for answer in line.answers])
    rows = [row[: len(columns.features)] for line in lines for row in line.rows]
    features = feature_columns(rows, columns.features, words=columns.words)
    return Sample(
        version=columns.version,
        model=columns.model,
        logged_requests=requests,
        logged_rows=logged_rows,
        at_s=np.repeat([line.at_s for line in lines], sizes),
        request=np.repeat(np.arange(len(lines)), sizes),
        values=answers | features,
    )


def feature_columns(
    rows: Sequence[Sequence[Value]], names: Sequence[str], *, words: Collection[str] = ()
) -> dict[str, Values]:
    """Features by name: numbers in single precision, as the model saw them; a missing number is NaN.

    Args:
        words: the names of features that are words; a missing word is `MISSING`.

    Raises: ValueError unless every row has a value for each name.
    """
    of_words = {name: place for place, name in enumerate(names) if name in words}
    numbers = [[0.0 if place in of_words.values() else value for place, value in enumerate(row)] for row in rows]
    matrix = np.array(numbers if of_words else rows, np.float32).astype(np.float64).reshape(len(rows), len(names))
    columns: dict[str, Values] = {name: matrix[:, place] for place, name in enumerate(names)}
    for name, place in of_words.items():
        columns[name] = np.array([MISSING if row[place] is None else str(row[place]) for row in rows], np.str_)
    return {f"feature.{name}" if name in TAKEN else name: values for name, values in columns.items()}


def answer_columns(answers: Sequence[Mapping[str, object]]) -> dict[str, Values]:
    """The fields of some answers by name, without those that no answer has: a number has no confidence.

    A field that only some answers lack is missing in those, as a feature may be.
    """
    columns = {name: [answer[name] for answer in answers] for name in (answers[0] if answers else ())}
    return {
        name: as_column([math.nan if value is None else value for value in values])
        for name, values in columns.items()
        if any(value is not None for value in values)
    }


def as_column(values: Sequence[object]) -> Values:
    """Numbers as numbers, everything else as words."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return np.array(values, np.float64)
    return np.array([str(value) for value in values], np.str_)
