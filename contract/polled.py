"""A service of our own that is asked often, or by a command that ends soon: by the standard library alone.

httpx takes three times as long for a question, and a fifth of a command to be imported, for what nothing here uses.
"""

import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from contract.deadline import within
from contract.in_time import InTime, must_be_left_s

FAILURES = (OSError, HTTPException)  # what a question may raise
_OF_PATHS = "/:@!$&'()*+,;=%"  # stands in them as it is


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered."""

    status: int
    body: bytes  # empty where it was not read
    content_type: str = ""  # empty: it says none

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class Polled:
    """One service. For one thread at a time. Its connection ends with it.

    Args:
        url: where it is; of its path nothing counts.
        timeout_s: longest wait for a whole answer, seconds; `contract.deadline` may make it shorter. Only the system
            bounds how long it takes to look up a name.
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
        with within(self._timeout_s):
            kept, self._connection = self._connection, None
            if kept is not None:
                try:
                    return self._asked(kept, target, headers or {})
                except TimeoutError:
                    raise
                except FAILURES:  # it closes what is not used, and all when it is started again
                    pass
            try:
                return self._asked(self._connected(), target, headers or {})
            except UnicodeError as error:  # its name can be no host's
                raise OSError(str(error)) from error

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
        return Answer(answer.status, body, answer.getheader("content-type", ""))

    def _connected(self) -> HTTPConnection:
        if self._unix_socket is not None:
            connection = HTTPConnection("localhost")
            connection.sock = InTime(_opened([(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", str(self._unix_socket))]))
            return connection
        host, is_tls = self._url.hostname or "", self._url.scheme == "https"
        port = self._url.port or (443 if is_tls else 80)
        connection = HTTPConnection(host, port)
        opened = _opened(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        connection.sock = InTime(self._encrypted(opened, host) if is_tls else opened)
        return connection

    def _encrypted(self, opened: socket.socket, host: str) -> socket.socket:
        try:
            opened.settimeout(must_be_left_s())
            return (self._trust or ssl.create_default_context()).wrap_socket(opened, server_hostname=host)
        except BaseException:
            opened.close()
            raise


def _opened(addresses: Iterable[tuple[int, int, int, str, Any]]) -> socket.socket:
    """A connection to the first that takes one. One that is silent leaves time for the next. Raises OSError."""
    every = list(addresses)
    failure = OSError("it has no address")
    for left, (family, kind, protocol, _, address) in zip(range(len(every), 0, -1), every, strict=True):
        opened = socket.socket(family, kind, protocol)
        try:
            opened.settimeout(must_be_left_s() / left)
            opened.connect(address)
        except OSError as error:
            opened.close()
            failure = error
        except BaseException:
            opened.close()
            raise
        else:
            return opened
    raise failure
