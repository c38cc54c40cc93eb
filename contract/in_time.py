"""A socket for `http.client` that keeps to `contract.deadline` for a whole answer.

A socket's own timeout holds for each part that arrives. Only the methods that `http.client` uses are here.
"""

import io
import socket
from typing import Any

from contract.deadline import left_s


class InTime:
    """Wraps an open socket, which may be encrypted. Each call raises TimeoutError if no time is left."""

    def __init__(self, opened: socket.socket) -> None:
        self._opened = opened

    def sendall(self, data: bytes) -> None:
        self._opened.settimeout(must_be_left_s())
        self._opened.sendall(data)

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(_Parts(self._opened))

    def close(self) -> None:
        self._opened.close()


class _Parts(io.RawIOBase):
    """The parts of an answer. They can be read even after their socket was closed."""

    def __init__(self, opened: socket.socket) -> None:
        self._opened, self._parts = opened, opened.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._opened.settimeout(must_be_left_s())
        return self._parts.readinto(buffer)

    def close(self) -> None:
        self._parts.close()
        super().close()


def must_be_left_s() -> float:
    """Seconds that a call may wait. Raises TimeoutError if there are none."""
    limit_s = left_s()
    if not limit_s:
        raise TimeoutError("the whole request took too long")
    return limit_s
