"""Keeps answers that are not in the table yet in files that survive a killed process.

Data that the kernel has accepted survives the process that wrote it. So a process appends each answer to a file in the
table's folder before the client gets it. A process holds a lock on its files as long as it lives. A file without a lock
was left by a dead process, and the process that finds it moves its answers to the table. Versions write to this
folder, and so does the observer, which sees more than they do. So no link is followed.
"""

import fcntl
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract import plain_files
from contract.answer_types import Label

FILES = "*.spool"
MAX_BYTES = 16 * 1024 * 1024  # of one file; further answers are lost if the process dies before the table has them

log = structlog.get_logger()


class Answer(BaseModel):
    """One line of a file. A newer Bento may write more fields."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    request_id: str
    version: str  # tag of the Bento that answered
    at_s: float  # Unix seconds
    labels: tuple[Label, ...]  # one per row
    body_crc: int = Field(ge=0, lt=2**32)  # of the request's body
    is_keyed: int | None = None  # 1: keyed; None: an older Bento's
    is_copy: int | None = None  # 1: no user got it


def line_of(
    request_id: str, version: str, at_s: float, labels: Sequence[Label], body_crc: int, *, is_copy: bool = False
) -> bytes:
    """An `Answer` as JSON, after a line end, because the line before it may have been cut off."""
    return b"\n" + orjson.dumps(
        {
            "request_id": request_id,
            "version": version,
            "at_s": at_s,
            "labels": labels,
            "body_crc": body_crc,
            "is_keyed": 1,
            "is_copy": int(is_copy),
        }
    )


class Spool:
    """The two files of one process: one takes answers while those in the other are written to the table.

    Args:
        folder: the folder of the table.

    Raises: OSError if a file cannot be made or locked there.
    """

    def __init__(self, folder: Path) -> None:
        self._current = _OwnFile(folder)
        try:
            self._other = _OwnFile(folder)
        except OSError:
            self._current.remove()
            raise

    def append(self, line: bytes) -> None:
        """Give `line` to the kernel. Raises OSError."""
        self._current.append(line)

    def switch(self) -> None:
        """Append to the other file from now on. It must be empty."""
        self._current, self._other = self._other, self._current

    def clear(self) -> None:
        """Empty the file that was used before the last `switch`: the table has its answers."""
        self._other.clear()

    def close(self) -> None:
        """Remove both files."""
        self._current.remove()
        self._other.remove()


class _OwnFile:
    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{os.getpid()}-{secrets.token_hex(8)}.spool"
        self._bytes = 0
        while True:
            with plain_files.opened_folder(folder.resolve()) as opened:  # the owner may have made the folder a link
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                self._descriptor = plain_files.opened_file(self._path.name, opened, flags)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            except OSError:
                self.remove()
                raise
            if os.fstat(self._descriptor).st_nlink:
                return
            os.close(self._descriptor)  # another process took the file over before it was locked

    def append(self, line: bytes) -> None:
        if self._bytes + len(line) > MAX_BYTES:
            return
        written = os.write(self._descriptor, line)
        self._bytes += written
        if written < len(line):
            raise OSError(f"only {written} of {len(line)} bytes could be written")

    def clear(self) -> None:
        if self._bytes:
            with suppress(OSError):  # if it fails, the answers are only written to the table again
                os.ftruncate(self._descriptor, 0)
                self._bytes = 0

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def answers_to(folder: Path, request_ids: Collection[str]) -> list[bytes]:
    """The lines about `request_ids` in the files of all processes, dead or alive."""
    found: list[bytes] = []
    for path in folder.resolve().glob(FILES):
        with suppress(OSError):  # just taken over, another user's, or a link
            found += [
                line for line, answer in _read(plain_files.read(path)) if answer and answer.request_id in request_ids
            ]
    return found


def take_over(folder: Path, write: Callable[[Sequence[bytes]], None]) -> int:
    """Give `write` the lines of each dead process, and remove its files once they are written.

    Returns: the number of unreadable lines. A killed process may leave part of a line, a crashed machine anything.

    Raises: OSError, or what `write` raised; then the files stay.
    """
    damaged = 0
    for path in folder.resolve().glob(FILES):
        opening = ExitStack()
        try:
            file = opening.enter_context(plain_files.opened(path))
        except OSError:  # just taken over, another user's, or a link
            continue
        with opening:
            if not _is_left(file):
                continue
            lines = list(_read(file.read()))
            if whole := [line for line, answer in lines if answer]:
                write(whole)
            path.unlink()
        damaged += len(lines) - len(whole)
        log.info("answers_taken_over", path=str(path), answers=len(whole), damaged=len(lines) - len(whole))
    return damaged


def _is_left(file: BinaryIO) -> bool:
    """Whether no process holds this file and none has taken it over. If so, the caller now holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return os.fstat(file.fileno()).st_nlink > 0


def _read(content: bytes) -> Iterator[tuple[bytes, Answer | None]]:
    """Each line with its answer; None: the line is damaged."""
    for line in filter(None, content.split(b"\n")):
        try:
            yield line, Answer.model_validate_json(line)
        except ValidationError:
            yield line, None
