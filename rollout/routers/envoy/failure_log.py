"""Reads the gateway's log of failed requests from the position in the ledger: which users had failures.

Users' names stay in the gateway's folder, and only as long as needed. Only a keyed hash of a name leaves this module,
and counted lines are deleted.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ValidationError

from rollout.errors import SourceUnreachable
from rollout.signals.sticky_users import UserFailure

_KEPT_BYTES = 2**20  # the file is emptied once this much of it was read
_READ_BYTES = 2**24  # read in one window; the rest waits for the next window


class GatewayFailures:
    """A FailureLog that reads the file of Envoy's access logger.

    Args:
        path: the file to which Envoy appends.
        key: the key of the hashes, 1 to 64 bytes; without it they are useless.
    """

    def __init__(self, path: Path, *, key: bytes) -> None:
        self._path = path
        self._key = key

    def read(self, offset: int) -> tuple[list[UserFailure], int]:
        """See `FailureLog`. A line that is not yet complete waits for the next call."""
        with self._explained(), self._path.open("rb") as file:
            # Shorter than `offset`: the file was emptied, and the ledger does not know it yet.
            start = offset if offset <= os.fstat(file.fileno()).st_size else 0
            file.seek(start)
            complete, newline, _ = file.read(_READ_BYTES).rpartition(b"\n")
        lines = complete + newline
        failures = [failure for line in lines.splitlines() if (failure := _parsed(line))]
        if lines and not failures:
            raise SourceUnreachable(
                "the gateway's log of failures cannot be understood",
                saw=f"no line of {self._path} as expected",  # without a line, because lines name people
                do="restart the gateway: its version differs from the controller's",
            )
        charged = [
            UserFailure(failure.start_s + failure.took_ms / 1000, failure.charged, self._hash(failure.user))
            for failure in failures
            if failure.charged
        ]
        return charged, start + len(lines)

    def trim(self, offset: int) -> int:
        """See `FailureLog`. A line that Envoy appends in the microseconds between check and truncation is lost."""
        with self._explained():
            size = self._path.stat().st_size
            if size < _KEPT_BYTES or size != offset:
                return offset
            os.truncate(self._path, 0)  # Envoy opens the file for appending: its next line becomes the first
        return 0

    def clear(self) -> None:
        """See `FailureLog`."""
        with self._explained():
            if self._path.exists() and self._path.stat().st_size:
                os.truncate(self._path, 0)

    def _hash(self, user: str | None) -> bytes | None:
        return None if user is None else hashlib.blake2b(user.encode(), key=self._key, digest_size=16).digest()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceUnreachable(
                "the gateway's log of failures cannot be read",
                saw=str(error),
                do="check that the gateway runs (`kanaria status`) and who owns the file",
            ) from error


class _Line(BaseModel):
    """One request that failed or fell back, in the format that `bootstrap` configures."""

    start_s: float
    took_ms: float
    version: str | None  # the version that answered; None: no version answered
    routed: str | None  # the version that the split chose
    attempts: int = 1  # gateways of earlier versions do not log it
    user: str | None

    @property
    def charged(self) -> str | None:
        """The version about which the line is evidence, as in `metrics`; None: neither."""
        has_failed = self.version in (None, self.routed) or self.attempts > 1
        return self.routed if has_failed else None


def _parsed(line: bytes) -> _Line | None:
    try:
        return _Line.model_validate_json(line)
    except ValidationError:
        return None  # the rest of a line whose beginning was cut off
