"""Writes a prediction log in segments: on a thread, off the request path, with a limited size.

Every process appends to its own segments. If it cannot keep up, rows are dropped and counted. Lines that are quick to
make are passed in ready: a thread that made hundreds in a row would keep the interpreter from the requests. Versions
write to this folder, and so does the observer, which sees more than they do. So no link is followed.
"""

import fnmatch
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog
from pydantic import ValidationError

from contract.plain_files import NotPlain, opened_file, opened_folder
from contract.prediction_log import COLUMNS_FILE, SEGMENTS, Columns, segment_name, version_folder
from service.logs.background import BackgroundWriter, Pauses

MAX_WAITING_ROWS = 20_000
SEGMENT_BYTES = 16 * 1024 * 1024
SEGMENT_AGE_S = 3600.0
MAX_AGE_S = 7 * 24 * 3600.0
WRITE_EVERY_S = 0.1
LINES_AT_ONCE = 1024  # the most that one system call takes (IOV_MAX of Linux and macOS)
PRUNE_EVERY_S = 60.0

Line = bytes | Callable[[], bytes]  # a line of `contract.prediction_log`, or a function that makes it on the thread

log = structlog.get_logger()


class SegmentLog(BackgroundWriter):
    """The segments of one process, of one version.

    Args:
        folder: for all versions on this machine; created if it is missing, readable by this user only.
        columns: the columns of this version's lines; segments in its folder with other columns are removed.
        max_bytes: all versions together keep about this much; the oldest segments are removed first.
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
        self._handing_over = threading.Lock()  # held while what follows changes hands
        self._waiting: list[Line] = []
        self._waiting_rows = 0
        self._segment: _Segment | None = None
        self._prune_at_s = 0.0

    @property
    def _is_full(self) -> bool:
        return self._waiting_rows >= MAX_WAITING_ROWS

    def _give(self, line: Line, rows: int) -> None:
        """Hand a line about `rows` rows to the thread. Never blocks. Pass a function if the line takes long to make."""
        with self._handing_over:
            self._waiting.append(line)
            self._waiting_rows += rows
        self._given()

    @property
    def _has_waiting(self) -> bool:
        return bool(self._waiting)

    def _turn(self, is_last: bool) -> None:
        lines, rows = self._drain()
        if lines:
            self._write(lines, rows)
        if is_last:
            self._close_segment()

    def _drain(self) -> tuple[list[Line], int]:
        """All waiting lines, and their number of rows."""
        with self._handing_over:
            lines, self._waiting = self._waiting, []
            rows, self._waiting_rows = self._waiting_rows, 0
        return lines, rows

    def _write(self, lines: Iterable[Line], rows: int) -> None:
        try:
            self._current_segment().write(self._made(lines))
        except Exception as error:  # noqa: BLE001 - a failed log must not cost an answer or stop this thread
            log.warning("predictions_not_written", path=str(self._folder), rows=rows, error=str(error))
            self._failed("write", error)
            self._count_dropped(rows)
            self._close_segment()  # its last line may be incomplete, so the next line starts a new segment

    def _made(self, lines: Iterable[Line]) -> list[bytes]:
        pauses, made = Pauses(), []
        for line in lines:
            if isinstance(line, bytes):
                made.append(line)
            else:
                made.append(line())
                if not self._is_half_full:  # otherwise new lines might find no room during a pause
                    pauses.take()
        return made

    @property
    def _is_half_full(self) -> bool:
        return self._waiting_rows >= MAX_WAITING_ROWS // 2

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
            for name in _segments(folder):  # their columns could no longer be told apart
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
        _replace(COLUMNS_FILE, content, folder)

    def _close_segment(self) -> None:
        if self._segment:
            self._segment.close()
            self._segment = None

    def _prune(self, now_s: float) -> None:
        """Remove the oldest segments of all versions until the rest is small and young enough."""
        kept_bytes = self._segment_bytes  # room for the current segment
        for path in sorted(self._root.glob(f"*/{SEGMENTS}"), key=lambda path: path.name, reverse=True):
            with suppress(FileNotFoundError, NotPlain), opened_folder(path.parent) as folder:  # removed, or a link
                found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
                kept_bytes += found.st_size
                is_own = self._segment is not None and path == self._segment.path
                if not is_own and (kept_bytes > self._max_bytes or found.st_mtime < now_s - MAX_AGE_S):
                    os.unlink(path.name, dir_fd=folder)


class _Segment:
    """One file, which takes lines until it is full, old or removed."""

    def __init__(self, path: Path, now_s: float, folder: int) -> None:
        self.path = path
        self._since_s = now_s
        self._descriptor = opened_file(path.name, folder, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def is_over(self, max_bytes: int, now_s: float) -> bool:
        """Whether to start another segment: this one is full or old, or another process removed it to make room."""
        found = os.fstat(self._descriptor)
        return found.st_size >= max_bytes or now_s - self._since_s >= SEGMENT_AGE_S or not found.st_nlink

    def write(self, lines: Sequence[bytes]) -> None:
        """Append all of `lines`. Raises OSError."""
        for start in range(0, len(lines), LINES_AT_ONCE):
            some = lines[start : start + LINES_AT_ONCE]
            written = os.writev(self._descriptor, some)  # it releases the interpreter to the requests
            if written < sum(map(len, some)):
                self._write_rest(memoryview(b"".join(some))[written:])

    def _write_rest(self, rest: memoryview) -> None:
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
    """Write a file in one step: a reader never sees half of it."""
    incoming = f".{name}.{os.getpid()}"
    with suppress(FileNotFoundError):
        os.unlink(incoming, dir_fd=folder)
    with os.fdopen(os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder), "wb") as file:
        file.write(content)
    os.replace(incoming, name, src_dir_fd=folder, dst_dir_fd=folder)
