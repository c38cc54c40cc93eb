"""One answer of a version, kept until the answer with which it is compared arrives."""

import hashlib
import json
import zlib
from dataclasses import dataclass
from typing import Any

import orjson

LARGEST_BYTES = 5 * 1024 * 1024  # of a body that is kept; larger bodies are compared by their hash

_WHOLE = ("", "identity")
_DEFLATED = ("gzip", "x-gzip", "deflate")
_ANY_HEADER = zlib.MAX_WBITS | 32  # accept zlib's or gzip's header


@dataclass(frozen=True, slots=True)
class Opaque:
    """A body of which only the hash is compared."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a version."""

    status: int
    media_type: str
    encoding: str
    body: bytes | None  # None: it was too large to be kept
    digest: bytes  # of a body that was not kept

    @property
    def sha256(self) -> bytes:
        """The hash of the body as it arrived."""
        return self.digest if self.body is None else hashlib.sha256(self.body).digest()

    @property
    def size(self) -> int:
        """The memory that it takes, bytes."""
        return len(self.body or b"")

    def content(self) -> Any:
        """The body's JSON value; Opaque if it is not JSON or too large."""
        if self.body is None:
            return Opaque(self.digest)
        body = self.body
        if self.encoding in _DEFLATED:
            try:
                unpacking = zlib.decompressobj(_ANY_HEADER)
                body = unpacking.decompress(body, LARGEST_BYTES)
            except zlib.error:
                return _hashed(body)
            if unpacking.unconsumed_tail:
                return _hashed(self.body)
        elif self.encoding not in _WHOLE:
            return _hashed(body)
        if "json" not in self.media_type:
            return _hashed(body)
        try:
            return orjson.loads(body)
        except ValueError:
            return _lenient(body)


class Reader:
    """Reads a body part by part, and never holds more than `most` bytes of it."""

    def __init__(self, status: int, media_type: str, encoding: str, *, most: int = LARGEST_BYTES) -> None:
        self._most = most
        self._status, self._media_type, self._encoding = status, media_type.lower(), encoding.lower()
        self._parts: list[bytes] | None = []
        self._size = 0
        self._hash = hashlib.sha256()

    def add(self, part: bytes) -> None:
        self._size += len(part)
        if self._parts is not None:
            self._parts.append(part)
            if self._size <= self._most:
                return
            parts, self._parts = self._parts, None
            for kept in parts:
                self._hash.update(kept)
        else:
            self._hash.update(part)

    def answer(self) -> Answer:
        """The complete answer."""
        body = None if self._parts is None else b"".join(self._parts)
        return Answer(self._status, self._media_type, self._encoding, body, self._hash.digest())


def _lenient(body: bytes) -> Any:
    """JSON as Python reads it, with NaN; Opaque if it is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return _hashed(body)


def _hashed(body: bytes) -> Opaque:
    return Opaque(hashlib.sha256(body).digest())
