"""The prediction log of a model: requests and their answers, for drift reports, audits and later questions."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from contract import plain_files
from contract.files import is_lost, write_once
from contract.model_files import Schema
from contract.prediction_log import LINE, Columns
from service.logs.segments import SegmentLog

KEY_FILE = "hash-key"
# A body with more bytes per number than this is mostly white space, and is rewritten without it.
MAX_BYTES_PER_VALUE = 32

_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


class PredictionLog(SegmentLog):
    """The log of one process.

    Args:
        folder: for all versions on this machine; created if it is missing, readable by this user only.
        version: the Bento tag that this process serves.
        model: the tag of its model.
        schema: says which columns are private.
        max_bytes: all versions together keep about this much; the oldest segments are removed first.
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
        self._mask = _Mask(folder, schema)
        columns = Columns(
            version=version,
            model=model,
            features=self._mask.plain,
            hashed=self._mask.hashed,
            words=self._mask.words,
        )
        super().__init__(folder, columns, max_bytes=max_bytes, count_dropped=count_dropped, count_failure=count_failure)

    def record(self, body: bytes, rows: NDArray[np.float32], answer: bytes, *, is_listed: bool = True) -> None:
        """Log one request and its JSON answer; `rows` are the checked rows of its `body`. Never blocks.

        The body is logged as it arrived, which costs nothing. A body that has private columns, is bloated, or does not
        list every column (`is_listed`) is rewritten from `rows`.
        """
        if self._is_full:
            self._count_dropped(len(rows))
            return
        at_s, line = time.time(), None
        if not (is_listed and self._mask.is_empty and len(body) <= rows.size * MAX_BYTES_PER_VALUE):
            line = partial(self._masked, at_s, rows, answer)
        elif b"\n" in body or b"\r" in body:
            line = partial(_in_one_line, at_s, body, answer)
        self._give(line or LINE % (at_s, body, answer), len(rows))

    def _masked(self, at_s: float, rows: NDArray[np.float32], answer: bytes) -> bytes:
        return LINE % (at_s, self._mask.request(rows), answer)


def _in_one_line(at_s: float, body: bytes, answer: bytes) -> bytes:
    return LINE % (at_s, body.translate(_ONE_LINE), answer)


class _Mask:
    """Removes or hashes the private columns of a request."""

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
        """The key with which every process on this machine hashes; created if there is none."""
        path = self._folder.resolve() / KEY_FILE
        kept = plain_files.read(path) if path.exists() else b""
        if is_lost(kept):
            write_once(path, secrets.token_bytes(32))
            kept = plain_files.read(path)
        return kept

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
