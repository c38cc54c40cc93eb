"""Reads the prediction log: line by line, or as a table with one row per answered row.

docs/prediction-log.md shows `read_predictions`.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
from pydantic import ValidationError

from contract import plain_files
from contract.plain_files import NotPlain
from contract.prediction_log import COLUMNS_FILE, OWN_REQUESTS, SEGMENTS, Columns

_CLOCK_S = 1.0  # a file's time comes from the kernel's coarse clock, some milliseconds behind that of its lines


@dataclass(frozen=True, slots=True)
class Line:
    """One answered request."""

    at_s: float
    request_id: str
    rows: list[tuple[Any, ...]]  # each: features, then hashes
    answers: list[dict[str, Any]]


def read_predictions(folder: Path, since_s: float, *, version: str | None = None) -> pd.DataFrame:
    """Read requests and their answers.

    Args:
        folder: the log of all versions, `predictions/` in the state folder.
        since_s: skip requests that were answered earlier, Unix seconds.
        version: the tag of the version to read; None: all versions.

    Returns: `at_s`, `request_id`, `version`, `row` (its index in the request), the fields of the answer
        (`label`, `confidence`), then every feature by its name; oldest first. Hashed features are text.
        A feature with the name of another column becomes `feature.NAME`. Empty if there are no requests.
    """
    tables = [_table(of_version, since_s, version) for of_version in sorted(folder.glob("*/"))]
    filled = [table for table in tables if not table.empty]
    if not filled:
        return pd.DataFrame(columns=["at_s", "request_id", "version", "row"])
    return pd.concat(filled, ignore_index=True).sort_values("at_s", kind="stable", ignore_index=True)


def _table(folder: Path, since_s: float, version: str | None) -> pd.DataFrame:
    try:
        columns = Columns.model_validate_json(plain_files.read(folder / COLUMNS_FILE))
    except (OSError, ValidationError):  # not a version's log, a link, or a log in another format
        return pd.DataFrame()
    if version not in (None, columns.version):
        return pd.DataFrame()
    lines = list(_lines(folder, since_s))
    about = pd.DataFrame(
        {"at_s": line.at_s, "request_id": line.request_id, "version": columns.version, "row": number, **answer}
        for line in lines
        for number, answer in enumerate(line.answers)
    )
    names = [f"feature.{name}" if name in about.columns else name for name in (*columns.features, *columns.hashed)]
    return about.join(pd.DataFrame((row for line in lines for row in line.rows), columns=names))


def _lines(folder: Path, since_s: float) -> Iterator[Line]:
    for path in sorted(folder.glob(SEGMENTS)):
        with suppress(NotPlain), plain_files.opened(path) as segment:
            if os.fstat(segment.fileno()).st_mtime < since_s - _CLOCK_S:
                continue
            for text in segment:
                if (line := parse_line(text)) and line.at_s >= since_s and not line.request_id.startswith(OWN_REQUESTS):
                    yield line


def parse_line(text: bytes) -> Line | None:
    """Parse one line of a segment; None if its writer did not finish it."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    request, answer = document["request"], document["answer"]
    hashed = request.get("hashed") or [[]] * len(request["features"])
    rows = [(*features, *hashes) for features, hashes in zip(request["features"], hashed, strict=True)]
    return Line(document["at_s"], answer["request_id"], rows, answer["predictions"])
