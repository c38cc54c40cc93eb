"""Lines of a prediction log in segments: written on a thread, off the request path, in bounded room.

Every process appends to segments of its own; when it cannot keep up, rows are dropped and counted.
Versions of the contract can write here, and the observer, which sees more than they, does as well: no link is followed.
"""

import fnmatch
import os
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

import structlog
from pydantic import ValidationError

from contract.plain_files import NotPlain, opened_file, opened_folder
from contract.prediction_log import COLUMNS_FILE, SEGMENTS, Columns, segment_name, version_folder
from service.logs.background import BackgroundWriter

MAX_WAITING_ROWS = 20_000
SEGMENT_BYTES = 16 * 1024 * 1024
SEGMENT_AGE_S = 3600.0
MAX_AGE_S = 7 * 24 * 3600.0
WRITE_EVERY_S = 0.1
PRUNE_EVERY_S = 60.0

log = structlog.get_logger()


class Entry(Protocol):
    """One answered request."""

    @property
    def rows(self) -> int:
        """How many rows it has."""


EntryT = TypeVar("EntryT", bound=Entry)


class SegmentLog(BackgroundWriter, Generic[EntryT]):
    """The segments of one process, of one version.

    Args:
        folder: for all versions on this machine; created when it is missing, readable by this user only.
        columns: of this version's lines; what lies in its folder with other columns is removed.
        max_bytes: all versions together keep about this much; the oldest segments go first.
        count_dropped: called with the number of rows that were not kept.
        count_failure: called when something has failed.
    """

    def __init__(
        self,
        folder: Path,
        columns: Columns,
        *,
        max_bytes: int,
        count_dropped: Callable[[int], None],
        count_failure: Callable[[], None],
    ) -> None:
        super().__init__("predictions", every_s=WRITE_EVERY_S, count_failure=count_failure)
        self._root = folder
        self._folder = folder / version_folder(columns.version)
        self._columns = columns
        self._max_bytes = max_bytes
        self._segment_bytes = min(SEGMENT_BYTES, max_bytes // 4)
        self._count_dropped = count_dropped
        self._waiting: SimpleQueue[EntryT] = SimpleQueue()
        self._given_rows = 0  # changed on the event loop only
        self._taken_rows = 0  # changed on the thread only
        self._segment: _Segment | None = None
        self._prune_at_s = 0.0

    @abstractmethod
    def _line(self, entry: EntryT) -> bytes:
        """One line, as `contract.prediction_log` has it. Called on the thread."""

    @property
    def _is_full(self) -> bool:
        return self._given_rows - self._taken_rows >= MAX_WAITING_ROWS

    def _give(self, entry: EntryT) -> None:
        """Hand an entry to the thread. Never blocks."""
        self._given_rows += entry.rows
        self._waiting.put(entry)
        self._given()

    @property
    def _has_waiting(self) -> bool:
        return not self._waiting.empty()

    def _turn(self, is_last: bool) -> None:
        if entries := self._drain():
            self._write(entries)
        if is_last:
            self._close_segment()

    def _drain(self) -> list[EntryT]:
        entries: list[EntryT] = []
        with suppress(Empty):
            while True:
                entries.append(self._waiting.get_nowait())
                self._taken_rows += entries[-1].rows
        return entries

    def _write(self, entries: list[EntryT]) -> None:
        try:
            self._current_segment().write(b"".join(self._line(entry) for entry in entries))
        except Exception as error:  # noqa: BLE001 - a log that cannot be written must not cost an answer, nor this thread
            rows = sum(entry.rows for entry in entries)
            log.warning("predictions_not_written", path=str(self._folder), rows=rows, error=str(error))
            self._failed("write", error)
            self._count_dropped(rows)
            self._close_segment()  # its last line may be incomplete: begin another

    def _current_segment(self) -> "_Segment":
        now_s = time.time()
        if self._segment and self._segment.is_over(self._segment_bytes, now_s):
            self._close_segment()
        if self._segment is None:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder.mkdir(exist_ok=True, mode=0o700)
            with opened_folder(self._folder) as folder:
                self._write_columns(folder)
                self._segment = _Segment(self._folder / segment_name(now_s, os.getpid()), now_s, folder)
            self._prune_at_s = now_s
        if now_s >= self._prune_at_s:
            self._prune(now_s)
            self._prune_at_s = now_s + PRUNE_EVERY_S
        return self._segment

    def _write_columns(self, folder: int) -> None:
        content = self._columns.model_dump_json().encode()
        found = _read(COLUMNS_FILE, folder)
        if found is not None and found != content and _columns_in(found) != self._columns:
            for name in _segments(folder):  # nobody could tell which of its columns is which any more
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
        _replace(COLUMNS_FILE, content, folder)

    def _close_segment(self) -> None:
        if self._segment:
            self._segment.close()
            self._segment = None

    def _prune(self, now_s: float) -> None:
        """Remove the oldest segments of all versions until the rest is small and young enough."""
        kept_bytes = self._segment_bytes  # room for the one that is being written
        for path in sorted(self._root.glob(f"*/{SEGMENTS}"), key=lambda path: path.name, reverse=True):
            with suppress(FileNotFoundError, NotPlain), opened_folder(path.parent) as folder:  # removed, or a link
                found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
                kept_bytes += found.st_size
                is_own = self._segment is not None and path == self._segment.path
                if not is_own and (kept_bytes > self._max_bytes or found.st_mtime < now_s - MAX_AGE_S):
                    os.unlink(path.name, dir_fd=folder)


class _Segment:
    """One file that is appended to until it is full, old or removed."""

    def __init__(self, path: Path, now_s: float, folder: int) -> None:
        self.path = path
        self._since_s = now_s
        self._descriptor = opened_file(path.name, folder, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

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


def _segments(folder: int) -> list[str]:
    return fnmatch.filter(os.listdir(folder), SEGMENTS)


def _read(name: str, folder: int) -> bytes | None:
    """The content of a file; None: there is none."""
    try:
        with os.fdopen(opened_file(name, folder), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError:  # a link, or not readable
        return b""


def _columns_in(content: bytes) -> Columns | None:
    try:
        return Columns.model_validate_json(content)
    except ValidationError:
        return None


def _replace(name: str, content: bytes, folder: int) -> None:
    """Write a file so that no reader ever sees half of it."""
    incoming = f".{name}.{os.getpid()}"
    with suppress(FileNotFoundError):
        os.unlink(incoming, dir_fd=folder)
    with os.fdopen(os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder), "wb") as file:
        file.write(content)
    os.replace(incoming, name, src_dir_fd=folder, dst_dir_fd=folder)
