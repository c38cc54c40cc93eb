"""Remember each answer, so that the truth can be joined to it when feedback arrives.

One SQLite file holds the answers of every version and worker on a machine, because feedback may reach any of
them. A thread writes in batches, off the request path; when it cannot keep up, answers are dropped and
counted. Each process counts only its own version's answers, no matter which process received the feedback or the
other copy of a mirrored request.
"""

import asyncio
import operator
import sqlite3
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from queue import Empty, SimpleQueue

import orjson
import structlog

from contract.answer_types import Label
from contract.answers_table import ANSWERS_FILE, ANSWERS_SCHEMA
from contract.metrics import CORRECT, LABEL_AGES_S, WRONG
from service.logs import comparison, label_counts
from service.logs.background import BackgroundWriter

MAX_WAITING = 20_000  # answers not yet written; about 4 MB
MAX_ANSWERS = 1_000_000  # kept on disk; about 150 bytes each for one row
MAX_AGE_S = 7 * 24 * 3600.0
WRITE_EVERY_S = 0.2  # feedback is written sooner; while SQLite works, it takes a core from the requests
PRUNE_EVERY_S = 60.0
LOCKED_S = 5.0  # how long to wait for another process's transaction
RETRY_S = 0.02  # while another process holds the whole file
OVERTAKING_S = 2.5 * WRITE_EVERY_S  # how long feedback waits for another worker to write the answer that it is about

# When a request id is used again, the newer answer replaces the older one, unless its truth is known.
INSERT = """
INSERT INTO answers (request_id, version, answered_at_s, labels, body_crc, truth)
SELECT value ->> 'request_id', :version, value ->> 'at_s', value ->> 'labels', value ->> 'body_crc',
    (SELECT truth FROM answers WHERE request_id = value ->> 'request_id')
FROM json_each(:answers) WHERE true -- without it, SQLite would read ON as part of a join
ON CONFLICT (request_id, version) DO UPDATE
SET answered_at_s = excluded.answered_at_s, labels = excluded.labels, body_crc = excluded.body_crc
WHERE truth IS NULL
"""

log = structlog.get_logger()


class Feedback(Enum):
    """The outcome of one feedback request."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # this request already had feedback; nothing is counted twice
    UNKNOWN = "unknown"  # no such answer, or it is too old
    WRONG_LENGTH = "wrong_length"  # not one label per row


class AnswersUnavailable(Exception):
    """The answers cannot be read or written now."""


@dataclass(frozen=True, slots=True)
class _Answer:
    request_id: str
    labels: tuple[Label, ...]
    body_crc: int
    at_s: float


@dataclass(frozen=True, slots=True)
class _Truth:
    request_id: str
    labels: tuple[Label, ...]
    give_up_at_s: float  # on the monotonic clock
    outcome: Future[Feedback] = field(default_factory=Future)


class AnswerLog(BackgroundWriter):
    """The answers of one process.

    Args:
        folder: for the file that all versions share; created when it is missing.
        version: the Bento tag that this process serves.
        count_feedback: called with `correct` and `wrong` requests, on the writing thread; see `label_counts`.
        count_labels: called in the same way with requests by age, seconds, and outcome; see `label_counts`.
        count_disagreement: called in the same way with `same` and `different` requests; see `comparison`.
        count_dropped: called with the number of answers that were not kept.
        is_same: whether two answers, or an answer and the truth, are the same.
        max_answers: how many the file keeps; the oldest go first.
        label_ages_s: ages of answers at which their labels are counted.
    """

    def __init__(
        self,
        folder: Path,
        version: str,
        *,
        count_feedback: Callable[..., None],
        count_labels: Callable[[Mapping[tuple[float, str], int]], None],
        count_disagreement: Callable[..., None],
        count_dropped: Callable[[int], None],
        is_same: Callable[[object, object], bool] = operator.eq,
        max_answers: int = MAX_ANSWERS,
        label_ages_s: Sequence[float] = LABEL_AGES_S,
    ) -> None:
        super().__init__("answers", every_s=WRITE_EVERY_S)
        self._path = folder / ANSWERS_FILE
        self._version = version
        self._count_feedback = count_feedback
        self._count_labels = count_labels
        self._count_disagreement = count_disagreement
        self._count_dropped = count_dropped
        self._is_same = is_same
        self._max_answers = max_answers
        self._label_ages_s = label_ages_s
        self._waiting: SimpleQueue[_Answer | _Truth] = SimpleQueue()
        self._overtaking: list[_Truth] = []
        self._count_at_s = self._prune_at_s = time.monotonic()
        self._connection: sqlite3.Connection | None = None

    def record(self, request_id: str, labels: Sequence[Label], *, body: bytes) -> None:
        """Remember the answer to one request and a checksum of its `body`. Never blocks."""
        if self._waiting.qsize() >= MAX_WAITING:
            self._count_dropped(1)
            return
        self._waiting.put(_Answer(request_id, tuple(labels), zlib.crc32(body), time.time()))

    async def learn(self, request_id: str, labels: Sequence[Label]) -> Feedback:
        """Join the truth to the answer. Raises AnswersUnavailable."""
        if self._waiting.qsize() >= MAX_WAITING:
            raise AnswersUnavailable
        truth = _Truth(request_id, tuple(labels), time.monotonic() + OVERTAKING_S)
        self._waiting.put(truth)
        self._soon()
        return await asyncio.wrap_future(truth.outcome)

    def _turn(self, is_last: bool) -> None:
        batch = [*self._overtaking, *self._drain()]
        self._overtaking = []
        now_s = time.monotonic()
        try:
            connection = self._connection = self._connection or self._connect()
            if batch:
                self._overtaking = self._write(connection, batch)
            if now_s >= self._count_at_s or is_last:
                self._count(connection)
                self._count_at_s = now_s + WRITE_EVERY_S
            if now_s >= self._prune_at_s:
                self._prune(connection)
                self._prune_at_s = now_s + PRUNE_EVERY_S
        except (sqlite3.Error, OSError) as error:
            self._give_up(batch, error)
        if is_last:
            self._give_up(self._overtaking, None)
            if self._connection is not None:
                self._connection.close()

    def _drain(self) -> list[_Answer | _Truth]:
        batch: list[_Answer | _Truth] = []
        while len(batch) < MAX_WAITING:
            try:
                batch.append(self._waiting.get_nowait())
            except Empty:
                break
        return batch

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Transactions are begun explicitly: a deferred one could not wait for another process's transaction.
        connection = sqlite3.connect(self._path, timeout=LOCKED_S, isolation_level=None)
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(ANSWERS_SCHEMA)
        with suppress(sqlite3.OperationalError):  # the table may come from a Bento with an older copy of this file
            connection.execute("ALTER TABLE answers ADD COLUMN body_crc INTEGER")
        label_counts.begin(connection)
        comparison.begin(connection, self._version)
        return connection

    def _write(self, connection: sqlite3.Connection, batch: list[_Answer | _Truth]) -> list[_Truth]:
        """Write `batch` in one transaction; return the feedback whose answer may still come."""
        settled: list[tuple[_Truth, Feedback]] = []
        overtaking: list[_Truth] = []
        connection.execute("BEGIN IMMEDIATE")
        try:
            answers = orjson.dumps([item for item in batch if isinstance(item, _Answer)])
            # One statement: the interpreter is free for the event loop while SQLite works.
            connection.execute(INSERT, {"version": self._version, "answers": answers.decode()})
            for truth in (item for item in batch if isinstance(item, _Truth)):
                outcome = self._join(connection, truth)
                if outcome is Feedback.UNKNOWN and time.monotonic() < truth.give_up_at_s:
                    overtaking.append(truth)
                else:
                    settled.append((truth, outcome))
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        for truth, outcome in settled:
            truth.outcome.set_result(outcome)
        return overtaking

    def _join(self, connection: sqlite3.Connection, truth: _Truth) -> Feedback:
        with closing(
            connection.execute("SELECT labels, truth FROM answers WHERE request_id = ?", (truth.request_id,))
        ) as found:
            answers = found.fetchall()
        if not answers:
            return Feedback.UNKNOWN
        if any(len(orjson.loads(labels)) != len(truth.labels) for labels, _ in answers):
            return Feedback.WRONG_LENGTH
        if any(known is not None for _, known in answers):
            return Feedback.DUPLICATE
        connection.execute(
            "UPDATE answers SET truth = ? WHERE request_id = ?",
            (orjson.dumps(truth.labels).decode(), truth.request_id),
        )
        return Feedback.ACCEPTED

    def _count(self, connection: sqlite3.Connection) -> None:
        counted = label_counts.take(connection, self._version, self._is_same, self._label_ages_s, time.time())
        if counted.as_they_came:
            self._count_feedback(correct=counted.as_they_came[CORRECT], wrong=counted.as_they_came[WRONG])
        if counted.by_age:
            self._count_labels(counted.by_age)
        same, different = comparison.take(connection, self._version, self._is_same)
        if same or different:
            self._count_disagreement(same=same, different=different)

    def _prune(self, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM answers WHERE answered_at_s < ?", (time.time() - MAX_AGE_S,))
        connection.execute("DELETE FROM answers WHERE id <= (SELECT max(id) FROM answers) - ?", (self._max_answers,))

    def _give_up(self, batch: Sequence[_Answer | _Truth], error: Exception | None) -> None:
        answers = sum(isinstance(item, _Answer) for item in batch)
        if error is not None and batch:
            log.warning("answers_not_written", path=str(self._path), answers=answers, error=str(error))
        if answers:
            self._count_dropped(answers)
        for item in batch:
            if isinstance(item, _Truth) and not item.outcome.done():
                item.outcome.set_exception(AnswersUnavailable())


def _use_wal(connection: sqlite3.Connection) -> None:
    """Let processes read while one writes. SQLite's own timeout does not apply while another process does the same."""
    give_up_at_s = time.monotonic() + LOCKED_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up_at_s:
                raise
            time.sleep(RETRY_S)
        else:
            return
