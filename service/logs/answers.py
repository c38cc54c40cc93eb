"""Stores each answer, so that the truth can be joined to it when feedback arrives.

One SQLite file holds the answers of every version and worker on a machine, because feedback may reach any of them. A
thread writes in batches, off the request path. Until then an answer is in a spool file, which other processes take over
if this one is killed. If the thread cannot keep up, answers are dropped and counted. Each process counts only its own
version's answers, no matter which process received the feedback or the other copy of a mirrored request.
"""

import asyncio
import errno
import hashlib
import operator
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Self

import orjson
import structlog

from contract.answer_types import Label
from contract.answers_table import ANSWERS_FILE, ANSWERS_SCHEMA
from contract.http import OWN_CALLER
from contract.metrics import LABEL_AGES_S
from service.logs import comparison, known_labels, label_callers, label_counts, paired_labels, room, spool
from service.logs.background import BackgroundWriter
from service.logs.known_labels import NOTHING_KNOWN, KnownLabels
from service.logs.transactions import writing

MAX_WAITING = 20_000  # answers not yet written; about 4 MB
MAX_ANSWERS = 1_000_000  # kept on disk; about 150 bytes each for one row
MAX_BYTES = 512 * 2**20  # on disk; the oldest answers go first
MAX_JOURNAL_BYTES = 64 * 2**20
WRITE_EVERY_S = 0.2  # feedback is written sooner; SQLite takes a core from the requests while it works
TAKE_OVER_EVERY_S = 1.0  # how often to look for the spool files of dead processes
PRUNE_EVERY_S = 60.0
WEIGH_EVERY_S = 1.0
LOCKED_S = 5.0  # how long to wait for another process's transaction
ANSWER_WITHIN_S = 9.0  # longest wait of feedback; a gateway that waits 10 s still gets the reason
RETRY_S = 0.02  # between tries while another process holds the whole file
# How long feedback waits for another worker to write the answer: a worker with an older copy of this file, or one that
# could keep the answer only in its memory.
OVERTAKING_S = 2.5 * WRITE_EVERY_S

# If a request id is used again, the first answer stays. A truth about another version's answer also holds for this
# answer, unless the number of rows differs: callers may give one id to several requests.
INSERT = """
INSERT INTO answers (request_id, version, answered_at_s, labels, body_crc, is_keyed, is_copy, truth, labelled_by)
SELECT value ->> 'request_id', value ->> 'version', value ->> 'at_s', value ->> 'labels', value ->> 'body_crc',
    value ->> 'is_keyed', value ->> 'is_copy',
    (SELECT truth FROM answers WHERE request_id = value ->> 'request_id' AND
        CASE WHEN json_valid(truth) THEN json_array_length(truth) END = json_array_length(value, '$.labels')),
    (SELECT labelled_by FROM answers WHERE request_id = value ->> 'request_id')
FROM json_each(:answers) WHERE true -- without it, SQLite would read ON as part of a join
ON CONFLICT (request_id, version) DO UPDATE
SET answered_at_s = excluded.answered_at_s, labels = excluded.labels, body_crc = excluded.body_crc,
    is_keyed = excluded.is_keyed, is_copy = excluded.is_copy
WHERE truth IS NULL -- processes may write in another order; what a user got comes before a copy
    AND (coalesce(excluded.is_copy, 0), excluded.answered_at_s) < (coalesce(answers.is_copy, 0), answers.answered_at_s)
"""

ANSWERS_TO = "SELECT json_array_length(labels), truth, version FROM answers WHERE request_id = ? AND json_valid(labels)"

log = structlog.get_logger()


class Feedback(Enum):
    """The outcome of one feedback request."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # this request already had feedback; nothing is counted twice
    UNKNOWN = "unknown"  # no such answer, or it is too old
    WRONG_LENGTH = "wrong_length"  # not one label per row
    UNKNOWN_LABEL = "unknown_label"  # no version can answer with this label


class AnswersUnavailable(Exception):
    """The answers cannot be read or written now."""


@dataclass(frozen=True, slots=True)
class _Truth:
    request_id: str
    rows: int
    labels: str  # JSON array, one per row
    sender: str  # the name of the key that brought it
    give_up_at_s: float  # on the monotonic clock
    outcome: Future[Feedback] = field(default_factory=Future)

    def settle(self, outcome: Feedback | None) -> None:
        """Give the outcome to the waiting request, if it still waits; None: the answers cannot be written now."""
        if self.outcome.set_running_or_notify_cancel():
            if outcome is None:
                self.outcome.set_exception(AnswersUnavailable())
            else:
                self.outcome.set_result(outcome)


@dataclass(slots=True)
class _Regular:
    name: str
    do: Callable[[sqlite3.Connection], None]
    every_s: float
    also_last: bool = False  # whether it also runs in the last turn
    due_s: float = field(default_factory=time.monotonic)


class AnswerLog(BackgroundWriter):
    """The answers of one process.

    Args:
        folder: holds the file that all versions share; created if it is missing.
        version: the Bento tag that this process serves.
        count_feedback: called with requests by outcome and by the caller that labelled, on the writing thread; see
            `label_counts`.
        count_labels: called in the same way with requests by age, seconds, outcome and caller; see `label_counts`.
        count_disagreement: called in the same way with `same` and `different` requests; see `comparison`.
        count_pairs: called in the same way with requests by outcome and caller; see `paired_labels`.
        count_dropped: called with the number of answers that were not kept, or cannot be compared with anything.
        count_failure: called when anything else has failed.
        is_same: whether two answers, or an answer and the truth, are the same.
        labels: all labels that this version can give; None: its answers are numbers.
        key: key of the requests' checksums, at most 64 bytes; processes with different keys are not compared.
        max_answers: answers that the file keeps; the oldest are removed first.
        max_bytes: the largest size of the file; the oldest answers are removed first.
        label_ages_s: ages of answers at which their labels are counted.
    """

    def __init__(
        self,
        folder: Path,
        version: str,
        *,
        count_feedback: Callable[[Mapping[tuple[str, str], int]], None],
        count_labels: Callable[[Mapping[tuple[float, str, str], int]], None],
        count_disagreement: Callable[..., None],
        count_pairs: Callable[[Mapping[tuple[str, str], int]], None],
        count_dropped: Callable[[int], None],
        count_failure: Callable[[], None],
        is_same: Callable[[object, object], bool] = operator.eq,
        labels: Sequence[str] | None = None,
        key: bytes = b"",
        max_answers: int = MAX_ANSWERS,
        max_bytes: int = MAX_BYTES,
        label_ages_s: Sequence[float] = LABEL_AGES_S,
    ) -> None:
        super().__init__("answers", every_s=WRITE_EVERY_S, count_failure=count_failure)
        self._path = folder / ANSWERS_FILE
        self._version = version
        self._count_feedback = count_feedback
        self._count_labels = count_labels
        self._count_disagreement = count_disagreement
        self._count_pairs = count_pairs
        self._count_dropped = count_dropped
        self._is_same = is_same
        self._labels = labels
        self._keyed = hashlib.blake2b(digest_size=4, key=key)
        self._max_answers = max_answers
        self._label_ages_s = label_ages_s
        self._handing_over = threading.Lock()  # held while what follows changes hands
        self._answers: list[bytes] = []  # lines; each is also in the spool
        self._truths: list[_Truth] = []
        self._spool: spool.Spool | None = None
        self._not_spooled: OSError | None = None  # why an answer is in memory only
        self._overtaking: list[_Truth] = []
        self._regular = (
            _Regular("take over", self._take_over, TAKE_OVER_EVERY_S),
            _Regular("count", self._count, WRITE_EVERY_S, also_last=True),
            _Regular("prune", self._prune, PRUNE_EVERY_S),
            _Regular("weigh", partial(room.forget_large, max_bytes=max_bytes), WEIGH_EVERY_S),
        )
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        self._open_spool()
        return super().__enter__()

    def record(
        self,
        request_id: str,
        labels: Sequence[Label],
        *,
        body: bytes,
        caller: str = OWN_CALLER,
        is_copy: bool = False,
    ) -> None:
        """Store the answer to one request and a checksum of its `body`. It survives if this process is killed later.

        Args:
            caller: the name of the request's key; only feedback with the same name finds the answer.
            is_copy: no user gets this answer. It is compared with the answer that the user got. Its label counts in
                pairs of which only one answer is right, but not as a label of this version.
        """
        owned = _owned(request_id, caller)
        line = spool.line_of(owned, self._version, time.time(), labels, self._checksum(body), is_copy=is_copy)
        with self._handing_over:
            is_kept = len(self._answers) < MAX_WAITING
            if is_kept:
                self._answers.append(line)
                self._append_to_spool(line)
        if not is_kept:
            self._count_dropped(1)
        self._given()

    def _checksum(self, body: bytes) -> int:
        """The keyed checksum of a body.

        Without the key, a reader of the table could guess the values of a column that is never logged and check them.
        """
        hashed = self._keyed.copy()  # takes a third less time than a new hash
        hashed.update(body)
        return int.from_bytes(hashed.digest(), "big")

    def _append_to_spool(self, line: bytes) -> None:
        if self._spool:
            try:
                self._spool.append(line)
            except OSError as error:  # the answer is still in memory, and is lost only if this process dies
                self._not_spooled = error

    async def learn(
        self, request_id: str, labels: Sequence[Label], *, caller: str = OWN_CALLER, sender: str | None = None
    ) -> Feedback:
        """Join the truth to the answer that `caller` got.

        Args:
            sender: the name of the key that sent the truth; None: `caller`.

        Raises: AnswersUnavailable.
        """
        said, give_up_at_s = orjson.dumps(labels).decode(), time.monotonic() + OVERTAKING_S
        truth = _Truth(_owned(request_id, caller), len(labels), said, sender or caller, give_up_at_s)
        with self._handing_over:
            if len(self._truths) >= MAX_WAITING:
                raise AnswersUnavailable
            self._truths.append(truth)
        self._soon()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(truth.outcome), ANSWER_WITHIN_S)
        except TimeoutError:
            raise AnswersUnavailable from None

    @property
    def _has_waiting(self) -> bool:
        return bool(self._answers or self._truths or self._overtaking)

    def _turn(self, is_last: bool) -> None:
        with self._handing_over:
            answers, self._answers = self._answers, []
            truths, self._truths = [*self._overtaking, *self._truths], []
            not_spooled, self._not_spooled = self._not_spooled, None
            if self._spool:
                self._spool.switch()
        self._overtaking = []
        if not_spooled:
            self._failed("spool", not_spooled)
        if answers and not self._spool:
            self._open_spool()
        try:
            connection = self._connection = self._connection or self._connect()
            if answers or truths:
                self._overtaking = self._write(connection, answers, truths)
        except Exception as error:  # noqa: BLE001 - the waiting requests get an error
            if answers or truths:
                log.warning("answers_not_written", path=str(self._path), answers=len(answers), error=str(error))
            self._failed("write", error)
            self._give_up(answers, truths)
        if self._spool:
            self._spool.clear()
        if self._connection:
            self._take_regular_turns(self._connection, is_last)
        if is_last:
            self._close()

    def _take_regular_turns(self, connection: sqlite3.Connection, is_last: bool) -> None:
        """Run the tasks that are due. A failed task does not stop the others."""
        for regular in self._regular:
            now_s = time.monotonic()
            if now_s >= regular.due_s or (is_last and regular.also_last):
                regular.due_s = now_s + regular.every_s
                try:
                    regular.do(connection)
                except Exception as error:  # noqa: BLE001 - it runs again later
                    self._failed(regular.name, error)

    def _close(self) -> None:
        self._give_up([], self._overtaking)
        if self._connection is not None:
            self._connection.close()
        with self._handing_over:
            if self._spool:
                self._spool.close()
            self._spool = None

    def _connect(self) -> sqlite3.Connection:
        place = self._path.parent.resolve() / self._path.name
        _refuse_a_link(place, is_one=place.is_symlink())
        # Transactions are begun explicitly: a deferred one could not wait for another process's transaction.
        connection = sqlite3.connect(place, timeout=LOCKED_S, isolation_level=None)
        try:
            _refuse_a_link(place, is_one=_file_of(connection) != place)
            connection.execute("PRAGMA trusted_schema = OFF")  # untrusted versions write the file, and so its views
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA journal_size_limit = {MAX_JOURNAL_BYTES}")
            connection.executescript(ANSWERS_SCHEMA)
            for column in ("body_crc", "is_keyed", "is_copy"):
                # The table may come from a Bento with an older copy of this file.
                with suppress(sqlite3.OperationalError):
                    connection.execute(f"ALTER TABLE answers ADD COLUMN {column} INTEGER")
            label_counts.begin(connection)
            comparison.begin(connection, self._version)
            paired_labels.begin(connection)
            connection.execute(known_labels.SCHEMA)
            connection.execute(label_callers.SCHEMA)
            self._say_labels(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_spool(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            opened = spool.Spool(self._path.parent)
        except OSError as error:
            log.warning("answers_not_spooled", path=str(self._path.parent), error=str(error))
        else:
            self._spool = opened

    def _write(
        self, connection: sqlite3.Connection, answers: Sequence[bytes], truths: Sequence[_Truth]
    ) -> list[_Truth]:
        """Write `answers` and join `truths` in one transaction. Return the truths whose answer may still arrive."""
        with writing(connection):
            self._insert(connection, answers)
            known = KnownLabels.read(connection) if truths else NOTHING_KNOWN
            outcomes = {truth: self._join(connection, truth, known) for truth in truths}
            if unknown := [truth for truth, outcome in outcomes.items() if outcome is Feedback.UNKNOWN]:
                # No other process can write to the table now, so each answer is in the table or in a spool.
                self._insert(connection, spool.answers_to(self._path.parent, {truth.request_id for truth in unknown}))
                outcomes |= {truth: self._join(connection, truth, known) for truth in unknown}
        overtaking: list[_Truth] = []
        for truth, outcome in outcomes.items():
            if outcome is Feedback.UNKNOWN and time.monotonic() < truth.give_up_at_s:
                overtaking.append(truth)
            else:
                truth.settle(outcome)
        return overtaking

    def _insert(self, connection: sqlite3.Connection, answers: Iterable[bytes]) -> None:
        # One statement: the interpreter is free for the event loop while SQLite works.
        connection.execute(INSERT, {"answers": (b"[%b]" % b",".join(answers)).decode()})

    def _take_over(self, connection: sqlite3.Connection) -> None:
        damaged = spool.take_over(self._path.parent, lambda answers: self._insert(connection, answers))
        if damaged:
            self._count_dropped(damaged)

    def _join(self, connection: sqlite3.Connection, truth: _Truth, known: KnownLabels) -> Feedback:
        with closing(connection.execute(ANSWERS_TO, (truth.request_id,))) as found:
            answers = found.fetchall()
        if not answers:
            return Feedback.UNKNOWN
        if any(rows != truth.rows for rows, _, _ in answers):
            return Feedback.WRONG_LENGTH
        if any(before is not None for _, before, _ in answers):
            return Feedback.DUPLICATE
        if not known.may_be_true(truth.labels, [version for _, _, version in answers]):
            return Feedback.UNKNOWN_LABEL
        connection.execute(
            "UPDATE answers SET truth = ?, labelled_by = ? WHERE request_id = ?",
            (truth.labels, label_callers.counted_as(connection, truth.sender, at_s=time.time()), truth.request_id),
        )
        return Feedback.ACCEPTED

    def _count(self, connection: sqlite3.Connection) -> None:
        counted = label_counts.take(connection, self._version, self._is_same, self._label_ages_s, time.time())
        if counted.as_they_came:
            self._count_feedback(counted.as_they_came)
        if counted.by_age:
            self._count_labels(counted.by_age)
        if pairs := paired_labels.take(connection, self._version):
            self._count_pairs(pairs)
        compared = comparison.take(connection, self._version, self._is_same)
        if compared.same or compared.different:
            self._count_disagreement(same=compared.same, different=compared.different)
        if set_aside := counted.set_aside + compared.set_aside:
            log.warning("answers_not_comparable", path=str(self._path), answers=set_aside)
            self._count_dropped(set_aside)

    def _prune(self, connection: sqlite3.Connection) -> None:
        room.forget_old(connection, max_answers=self._max_answers)
        self._say_labels(connection)

    def _say_labels(self, connection: sqlite3.Connection) -> None:
        if self._labels is not None:
            known_labels.say(connection, self._version, self._labels, at_s=time.time())

    def _give_up(self, answers: Sequence[bytes], truths: Sequence[_Truth]) -> None:
        if answers:
            self._count_dropped(len(answers))
        for truth in truths:
            truth.settle(None)


def _owned(request_id: str, caller: str) -> str:
    """The table's id of a caller's request. Request ids have no `/`, so the ids of two callers never meet.

    The owner's ids have no prefix, as in tables from before keys had names and in Bentos with an older copy of this.
    """
    return request_id if caller == OWN_CALLER else f"{caller}/{request_id}"


def _refuse_a_link(place: Path, *, is_one: bool) -> None:
    """Refuse a link: another version may have made it at any time, to a table that it cannot reach itself."""
    if is_one:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(place))


def _file_of(connection: sqlite3.Connection) -> Path:
    """The file that is open. SQLite follows links and says where they led; it has read nothing from the file yet."""
    with closing(connection.execute("PRAGMA database_list")) as found:
        return Path(found.fetchone()[2])


def _use_wal(connection: sqlite3.Connection) -> None:
    """Let processes read while one writes. SQLite's timeout does not apply while another process does this too."""
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
