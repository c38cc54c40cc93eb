"""A client for frequent requests, large answers and short commands. It uses only the standard library.

httpx needs three times as long for a request, and its import takes a fifth of a command's time.
"""

import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPMessage
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from contract.deadline import within
from contract.in_time import InTime, must_be_left_s
from contract.names import Names

FAILURES = (OSError, HTTPException)  # what a request may raise
_OF_PATHS = "/:@!$&'()*+,;=%"  # characters of a path that are not percent-encoded
_FORM = {"content-type": "application/x-www-form-urlencoded"}
_MOST_KEPT = 20  # connections
_KEPT_S = 5.0  # later, a device on the way may have dropped an idle connection without notice
_NAMES = Names()


class ConnectTimeout(TimeoutError):
    """The connection was not accepted in time."""


class ReadTimeout(TimeoutError):
    """The connection was accepted, but the whole answer did not arrive in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes  # empty if it was not read
    content_type: str = ""  # empty: the answer gives none
    headers: HTTPMessage = field(default_factory=HTTPMessage, compare=False)  # names are case-insensitive

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class Polled:
    """A client for one service. Thread-safe: threads that ask at the same time use a connection each.

    The connections are closed when this object is deleted.

    Args:
        url: the address of the service; its path is ignored.
        timeout_s: longest wait for a whole answer, seconds; `contract.deadline` may make it shorter.
        keeps_connection: whether a connection is reused.
        unix_socket: the service's socket; None: the service is at its URL.
        trust: the certificates to accept, for https; it is set to speak HTTP/1.1. None: those that the system trusts.
        most_bytes: a body is read only if its declared length is at most this; None: always. A body may be endless.
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
        self._kept: list[tuple[float, HTTPConnection]] = []  # idle since (monotonic clock); the last one was used last
        self._url, self._timeout_s, self._keeps_connection = urlsplit(url), timeout_s, keeps_connection
        self._unix_socket, self._most_bytes = unix_socket, most_bytes
        self._trust: ssl.SSLContext | None = None
        if self._url.scheme == "https":
            self._trust = trust or ssl.create_default_context()
            self._trust.set_alpn_protocols(["http/1.1"])

    def get(
        self, path: str, query: Mapping[str, str] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a GET; once more if a reused connection was closed. Raises one of FAILURES."""
        target = quote(path, safe=_OF_PATHS) + (f"?{urlencode(query)}" if query else "")
        return self._answered("GET", target, None, headers or {}, self._timeout_s)

    def post(
        self,
        path: str,
        form: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """Send a form by POST, as `get` does. The service may carry it out twice.

        Args:
            timeout_s: longest wait for this answer, seconds; None: the client's limit.
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        sent = {**_FORM, **(headers or {})}
        return self._answered("POST", quote(path, safe=_OF_PATHS), urlencode(form).encode(), sent, limit_s)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections; the next request opens a new one."""
        kept, self._kept = self._kept, []
        for _, connection in kept:
            connection.close()

    def _answered(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], limit_s: float
    ) -> Answer:
        with within(limit_s):
            kept = self._taken()
            if kept is not None:
                try:
                    return self._asked(kept, method, target, body, headers)
                except TimeoutError:
                    raise
                except FAILURES:  # the service closes idle connections, and all of them when it restarts
                    pass
            return self._asked(self._connected(), method, target, body, headers)

    def _taken(self) -> HTTPConnection | None:
        """Take an idle connection out of the list; None: there is none."""
        while self._kept:
            try:
                since_s, connection = self._kept.pop()
            except IndexError:  # another thread was faster
                break
            if time.monotonic() - since_s < _KEPT_S:
                return connection
            connection.close()
        return None

    def _asked(
        self, connection: HTTPConnection, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        is_kept = False
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            if answer.status < HTTPStatus.OK:  # the real answer follows and would be taken for that of the next request
                raise HTTPException(f"HTTP {answer.status} in the place of an answer")
            is_read = self._most_bytes is None or (answer.length is not None and answer.length <= self._most_bytes)
            read = answer.read() if is_read else b""
            is_kept = self._keeps_connection and is_read and not answer.will_close and len(self._kept) < _MOST_KEPT
        except TimeoutError as error:
            raise ReadTimeout(str(error)) from error
        finally:
            if not is_kept:
                connection.close()
        if is_kept:
            self._kept.append((time.monotonic(), connection))
        return Answer(answer.status, read, answer.getheader("content-type", ""), answer.headers)

    def _connected(self) -> HTTPConnection:
        if self._unix_socket is not None:
            connection = HTTPConnection("localhost")
            connection.sock = InTime(_opened([(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", str(self._unix_socket))]))
            return connection
        host, usual = self._url.hostname or "", 443 if self._trust else 80
        connection = HTTPConnection(host, self._url.port or usual)
        connection.default_port = usual  # http.client names any other port in the Host header
        try:
            opened = _opened(_addresses(host, connection.port))
            connection.sock = InTime(_encrypted(opened, host, self._trust) if self._trust else opened)
        except TimeoutError as error:
            raise ConnectTimeout(str(error)) from error
        return connection


def _encrypted(opened: socket.socket, host: str, trust: ssl.SSLContext) -> socket.socket:
    try:
        opened.settimeout(must_be_left_s())
        return trust.wrap_socket(opened, server_hostname=host)
    except BaseException:
        opened.close()
        raise


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, Any]]:
    """The addresses of a host, as a socket takes them. Raises OSError."""
    return [
        found
        for address in _NAMES.addresses(host, must_be_left_s())
        for found in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    ]


def _opened(addresses: Iterable[tuple[int, int, int, str, Any]]) -> socket.socket:
    """Connect to the first address that accepts; a silent address leaves time for the others. Raises OSError."""
    every = list(addresses)
    failure = OSError("it has no address")
    for left, (family, kind, protocol, _, address) in zip(range(len(every), 0, -1), every, strict=True):
        opened = socket.socket(family, kind, protocol)
        try:
            opened.settimeout(must_be_left_s() / left)
            opened.connect(address)
            if family != socket.AF_UNIX:
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a form follows its headers at once
        except OSError as error:
            opened.close()
            failure = error
        except BaseException:
            opened.close()
            raise
        else:
            return opened
    raise failure
