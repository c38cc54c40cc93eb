"""The prediction log: requests and their answers, for drift reports, audits and later questions.

Every process appends lines of JSON to segments of its own, on a thread, off the request path; when it
cannot keep up, rows are dropped and counted.
"""

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import orjson
import structlog
from numpy.typing import NDArray

from contract.model_files import Schema
from contract.prediction_log import COLUMNS_FILE, LINE, SEGMENTS, Columns, segment_name, version_folder
from service.logs.background import BackgroundWriter

KEY_FILE = "hash-key"
MAX_WAITING_ROWS = 20_000
SEGMENT_BYTES = 16 * 1024 * 1024
SEGMENT_AGE_S = 3600.0
MAX_AGE_S = 7 * 24 * 3600.0
WRITE_EVERY_S = 0.1
PRUNE_EVERY_S = 60.0
# A body with more bytes per number than this is mostly white space, and is written again without it.
MAX_BYTES_PER_VALUE = 32

_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Entry:
    at_s: float
    request: bytes | NDArray[np.float32]  # the body as received, or checked rows that are still to be masked
    answer: bytes
    rows: int


class PredictionLog(BackgroundWriter):
    """The log of one process.

    Args:
        folder: for all versions on this machine; created when it is missing, readable by this user only.
        version: the Bento tag that this process serves.
        model: the tag of its model.
        schema: says which columns are private.
        max_bytes: all versions together keep about this much; the oldest segments go first.
        count_dropped: called with the number of rows that were not kept.
        count_failure: called when something has failed.
    """

    def __init__(
        self,
        folder: Path,
        version: str,
        model: str,
        schema: Schema,
        *,
        max_bytes: int,
        count_dropped: Callable[[int], None],
        count_failure: Callable[[], None],
    ) -> None:
        super().__init__("predictions", every_s=WRITE_EVERY_S, count_failure=count_failure)
        self._root = folder
        self._folder = folder / version_folder(version)
        self._mask = _Mask(folder, schema)
        self._columns = Columns(
            version=version,
            model=model,
            features=self._mask.plain,
            hashed=self._mask.hashed,
            words=self._mask.words,
        )
        self._max_bytes = max_bytes
        self._segment_bytes = min(SEGMENT_BYTES, max_bytes // 4)
        self._count_dropped = count_dropped
        self._waiting: SimpleQueue[_Entry] = SimpleQueue()
        self._given_rows = 0  # changed on the event loop only
        self._taken_rows = 0  # changed on the thread only
        self._segment: _Segment | None = None
        self._prune_at_s = 0.0

    def record(self, body: bytes, rows: NDArray[np.float32], answer: bytes, *, is_listed: bool = True) -> None:
        """Log one request and its JSON answer; `rows` are the checked rows of its `body`. Never blocks.

        The body is logged as it came, which costs nothing; one that is private or bloated, or does not list every
        column (`is_listed`), is written again from `rows`.
        """
        if self._given_rows - self._taken_rows >= MAX_WAITING_ROWS:
            self._count_dropped(len(rows))
            return
        self._given_rows += len(rows)
        is_plain = is_listed and self._mask.is_empty and len(body) <= rows.size * MAX_BYTES_PER_VALUE
        self._waiting.put(_Entry(time.time(), body if is_plain else rows, answer, len(rows)))

    def _turn(self, is_last: bool) -> None:
        if entries := self._drain():
            self._write(entries)
        if is_last:
            self._close_segment()

    def _drain(self) -> list[_Entry]:
        entries: list[_Entry] = []
        with suppress(Empty):
            while True:
                entries.append(self._waiting.get_nowait())
                self._taken_rows += entries[-1].rows
        return entries

    def _write(self, entries: list[_Entry]) -> None:
        try:
            self._current_segment().write(b"".join(self._line(entry) for entry in entries))
        except Exception as error:  # noqa: BLE001 - a log that cannot be written must not cost an answer, nor this thread
            rows = sum(entry.rows for entry in entries)
            log.warning("predictions_not_written", path=str(self._folder), rows=rows, error=str(error))
            self._failed("write", error)
            self._count_dropped(rows)
            self._close_segment()  # its last line may be incomplete: begin another

    def _line(self, entry: _Entry) -> bytes:
        request = entry.request
        if not isinstance(request, bytes):
            request = self._mask.request(request)
        elif b"\n" in request or b"\r" in request:
            request = request.translate(_ONE_LINE)
        return LINE % (entry.at_s, request, entry.answer)

    def _current_segment(self) -> "_Segment":
        now_s = time.time()
        if self._segment and self._segment.is_over(self._segment_bytes, now_s):
            self._close_segment()
        if self._segment is None:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder.mkdir(exist_ok=True, mode=0o700)
            _replace(self._folder / COLUMNS_FILE, self._columns.model_dump_json().encode())
            self._segment = _Segment(self._folder / segment_name(now_s, os.getpid()), now_s)
            self._prune_at_s = now_s
        if now_s >= self._prune_at_s:
            self._prune(now_s)
            self._prune_at_s = now_s + PRUNE_EVERY_S
        return self._segment

    def _close_segment(self) -> None:
        if self._segment:
            self._segment.close()
            self._segment = None

    def _prune(self, now_s: float) -> None:
        """Remove the oldest segments of all versions until the rest is small and young enough."""
        kept_bytes = self._segment_bytes  # room for the one that is being written
        for path in sorted(self._root.glob(f"*/{SEGMENTS}"), key=lambda path: path.name, reverse=True):
            with suppress(FileNotFoundError):  # another process removed it first
                found = path.stat()
                kept_bytes += found.st_size
                is_own = self._segment is not None and path == self._segment.path
                if not is_own and (kept_bytes > self._max_bytes or found.st_mtime < now_s - MAX_AGE_S):
                    path.unlink()


class _Segment:
    """One file that is appended to until it is full, old or removed."""

    def __init__(self, path: Path, now_s: float) -> None:
        self.path = path
        self._since_s = now_s
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def is_over(self, max_bytes: int, now_s: float) -> bool:
        """Whether it is time for another one, also because another process removed this one to make room."""
        found = os.fstat(self._descriptor)
        return found.st_size >= max_bytes or now_s - self._since_s >= SEGMENT_AGE_S or not found.st_nlink

    def write(self, lines: bytes) -> None:
        """Append all of `lines`. Raises OSError."""
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def close(self) -> None:
        os.close(self._descriptor)


class _Mask:
    """What is left of a request once its private columns are taken out."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self._folder = folder
        self._schema = schema
        self._names = [feature.name for feature in schema.features]
        self._plain = schema.logged_as("plain")
        self._hashed = schema.logged_as("hashed")
        self.is_empty = len(self._plain) == len(schema.features)

    @property
    def plain(self) -> tuple[str, ...]:
        """The names of the features that are logged as they are, in order."""
        return tuple(self._names[i] for i in self._plain)

    @property
    def hashed(self) -> tuple[str, ...]:
        """The names of the features that are logged as hashes, in order."""
        return tuple(self._names[i] for i in self._hashed)

    @property
    def words(self) -> tuple[str, ...]:
        """The names of the features that are logged as words."""
        return tuple(self._names[i] for i in self._plain if self._schema.features[i].categories)

    @cached_property
    def _key(self) -> bytes:
        """The key that every process on this machine hashes with; created when there is none."""
        path = self._folder / KEY_FILE
        if not path.exists():
            own = path.with_suffix(f".{os.getpid()}")
            own.touch(0o600)
            own.write_bytes(secrets.token_bytes(32))
            with suppress(FileExistsError):  # the first key stays
                path.hardlink_to(own)
            own.unlink()
        return path.read_bytes()

    def request(self, rows: NDArray[np.float32]) -> bytes:
        """The request that is logged for `rows`."""
        request: dict[str, object] = {"features": self._values(rows)}
        if self._hashed:
            request["hashed"] = [self._hashes(row[self._hashed]) for row in rows]
        return orjson.dumps(request, option=orjson.OPT_SERIALIZE_NUMPY)

    def _values(self, rows: NDArray[np.float32]) -> object:
        if not self.words:
            return np.take(rows, self._plain, axis=1)  # NaN is written as null
        features = [self._schema.features[i] for i in self._plain]
        taken = np.take(rows, self._plain, axis=1).tolist()
        return [[one.value(number) for one, number in zip(features, row, strict=True)] for row in taken]

    def _hashes(self, values: Iterable[np.float32]) -> list[str]:
        """Keyed hashes, because a plain hash of a number can be reversed by trying all numbers."""
        return [hmac.digest(self._key, value.tobytes(), hashlib.sha256)[:8].hex() for value in values]


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever sees half of it."""
    written = path.with_name(f".{path.name}.{os.getpid()}")
    written.write_bytes(content)
    written.replace(path)
