"""A service of this machine that is asked every second for as long as it runs: by the standard library alone.

httpx takes three times as long for a question, most of it for what nothing here uses.
"""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

FAILURES = (OSError, HTTPException)  # what a question may raise
_OF_PATHS = "/:@!$&'()*+,;=%"  # stands in them as it is


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered."""

    status: int
    body: bytes  # empty where it was not read

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class Polled:
    """One service. For one thread at a time. Its connection ends with it.

    Args:
        url: where it is; of its path nothing counts.
        timeout_s: longest wait for the next part of an answer, seconds.
        keeps_connection: whether a connection is used again.
        unix_socket: the one at which it is; None: it is where its URL says.
        trust: whose certificates count, for https.
        most_bytes: a body is read where it says that it is no longer than this; None: always. One may have no end.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        keeps_connection: bool = True,
        unix_socket: Path | None = None,
        trust: ssl.SSLContext | None = None,
        most_bytes: int | None = None,
    ) -> None:
        self._connection: HTTPConnection | None = None  # that an answer came by
        self._url, self._timeout_s, self._keeps_connection = urlsplit(url), timeout_s, keeps_connection
        self._unix_socket, self._trust, self._most_bytes = unix_socket, trust, most_bytes

    def get(
        self, path: str, query: Mapping[str, str] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask once; twice where a connection that was kept has been closed. Raises one of FAILURES."""
        target = quote(path, safe=_OF_PATHS) + (f"?{urlencode(query)}" if query else "")
        kept, self._connection = self._connection, None
        if kept is not None:
            try:
                return self._asked(kept, target, headers or {})
            except TimeoutError:
                raise
            except FAILURES:  # it closes what is not used, and all when it is started again
                pass
        return self._asked(self._connected(), target, headers or {})

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection that is kept; the next question opens one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _asked(self, connection: HTTPConnection, target: str, headers: Mapping[str, str]) -> Answer:
        is_kept = False
        try:
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            is_read = self._most_bytes is None or (answer.length is not None and answer.length <= self._most_bytes)
            body = answer.read() if is_read else b""
            is_kept = self._keeps_connection and is_read and not answer.will_close
        finally:
            if not is_kept:
                connection.close()
        self.close()
        self._connection = connection if is_kept else None
        return Answer(answer.status, body)

    def _connected(self) -> HTTPConnection:
        if self._unix_socket is not None:
            return _AtSocket(self._unix_socket, self._timeout_s)
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            return HTTPSConnection(host, port, timeout=self._timeout_s, context=self._trust)
        return HTTPConnection(host, port, timeout=self._timeout_s)


class _AtSocket(HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = str(path)

    def connect(self) -> None:
        at = socket.socket(socket.AF_UNIX)
        try:
            at.settimeout(self.timeout)
            at.connect(self._path)
        except BaseException:
            at.close()
            raise
        self.sock = at
