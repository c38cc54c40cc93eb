"""Reads answers with feedback: how often, or by how much, the model was wrong.

They come from the table in which the service joins feedback to its answers.
"""

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import orjson
from numpy.typing import NDArray

from contract.answers_table import ANSWERS_FILE
from contract.plain_files import NotPlain
from monitoring.drift.column import Column
from monitoring.drift.errors import AnswersUnreadable
from monitoring.drift.sample import as_column

_SHOWN = 100  # characters of a truth
# A truth that does not fit its answer is left out. The service does not count it either.
_QUERY = """
SELECT answered_at_s, labels, truth FROM answers
WHERE version = ? AND truth IS NOT NULL AND answered_at_s >= ? AND answered_at_s < ? {of_users}
    AND CASE WHEN json_valid(labels) AND json_valid(truth) THEN json_array_length(labels) = json_array_length(truth) END
ORDER BY random() LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers and their truth, row by row."""

    label: NDArray[np.float64] | NDArray[np.str_]
    truth: NDArray[np.float64] | NDArray[np.str_]
    request: NDArray[np.int64]
    at_s: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        label: Sequence[object],
        truth: Sequence[object],
        request: NDArray[np.int64],
        at_s: Sequence[float] | None = None,
    ) -> Self:
        """Make them from lists with one entry per row."""
        return cls(as_column(label), as_column(_cut(truth, label)), request, np.array(at_s or [0.0] * len(label)))

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: NDArray[np.int64]) -> "Answered":
        """The answers with only `rows`, given by index."""
        return Answered(self.label[rows], self.truth[rows], self.request[rows], self.at_s[rows])

    def known(self) -> "Answered":
        """The answers without missing numbers."""
        if not self.is_numeric:
            return self
        return self.take(np.flatnonzero(np.isfinite(self.label.astype(np.float64) + self.truth.astype(np.float64))))

    @property
    def is_numeric(self) -> bool:
        """Whether answers and truths are numbers, not labels."""
        return self.label.dtype.kind == self.truth.dtype.kind == "f"

    @property
    def mistakes(self) -> Column:
        """1 for a wrong label and 0 for a right one; for a number its absolute error."""
        if self.is_numeric:
            return Column(np.abs(self.label.astype(np.float64) - self.truth.astype(np.float64)), self.request)
        return Column((self.label.astype(np.str_) != self.truth.astype(np.str_)).astype(np.float64), self.request)


def _cut(truth: Sequence[object], label: Sequence[object]) -> list[object]:
    """Cut long truths that cannot be a label: in an array of words every row takes the space of the longest."""
    longest = max([_SHOWN, *(len(word) + 1 for word in label if isinstance(word, str))])
    return [true[:longest] if isinstance(true, str) else true for true in truth]


def answered(folder: Path, version: str, since_s: float, until_s: float, *, requests: int) -> Answered:
    """The answers of `version` in a period that have feedback.

    Args:
        folder: `answers/` in the state folder; without a file in it there is no feedback.
        since_s, until_s: the period, Unix seconds.
        requests: the largest number of requests to read, drawn at random.

    Raises: AnswersUnreadable.
    """
    path = folder / ANSWERS_FILE
    found: list[tuple[float, list[object], list[object]]] = []
    if os.path.lexists(path):
        try:
            with _opened(path) as connection:
                columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(answers)")}
                # The table may come from a Bento with an older schema, without a column for copies.
                query = _QUERY.format(of_users="AND is_copy IS NOT 1" if "is_copy" in columns else "")
                rows = connection.execute(query, (version, since_s, until_s, requests)).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise AnswersUnreadable(
                "the answers with feedback cannot be read",
                saw=f"{path}: {error}",
                do=f"run the report again; if it fails again, move {folder} away while the stack is down: "
                "the next start creates a new one",
            ) from error
        found = [(at_s, orjson.loads(labels), orjson.loads(truth)) for at_s, labels, truth in rows]
    sizes = [len(truth) for _, _, truth in found]
    return Answered.of(
        [label for _, labels, _ in found for label in labels],
        [true for _, _, truth in found for true in truth],
        np.repeat(np.arange(len(found)), sizes),
        np.repeat([at_s for at_s, _, _ in found], sizes).tolist(),
    )


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the table without following links: versions can write to its folder and link to files they cannot read."""
    place = path.parent.resolve() / path.name
    if not stat.S_ISREG(place.lstat().st_mode):
        raise NotPlain(errno.EINVAL, "it is not a plain file")
    with closing(sqlite3.connect(f"{place.as_uri()}?mode=ro", uri=True)) as connection:
        [(_, _, opened)] = connection.execute("PRAGMA database_list")  # reads nothing of it yet
        if Path(opened) != place:  # a link was made since the check: SQLite followed it
            raise NotPlain(errno.ELOOP, "it is a link")
        connection.execute("PRAGMA trusted_schema = OFF")  # untrusted versions write the file, and so its views
        yield connection
