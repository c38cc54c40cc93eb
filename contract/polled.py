"""A service that is asked often, for much, or by a command that ends soon: by the standard library alone.

httpx takes three times as long for a question, and a fifth of a command to be imported, for what nothing here uses.
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

FAILURES = (OSError, HTTPException)  # what a question may raise
_OF_PATHS = "/:@!$&'()*+,;=%"  # stands in them as it is
_FORM = {"content-type": "application/x-www-form-urlencoded"}
_MOST_KEPT = 20  # connections
_KEPT_S = 5.0  # after that a machine in between may have forgotten one, and says nothing of it
_NAMES = Names()


class ConnectTimeout(TimeoutError):
    """Nobody took the connection in time."""


class ReadTimeout(TimeoutError):
    """The connection was taken, and the whole answer did not come in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered."""

    status: int
    body: bytes  # empty where it was not read
    content_type: str = ""  # empty: it says none
    headers: HTTPMessage = field(default_factory=HTTPMessage, compare=False)  # by their names in any case

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class Polled:
    """One service. Used from any thread; those that ask at the same time have a connection each. They end with it.

    Args:
        url: where it is; of its path nothing counts.
        timeout_s: longest wait for a whole answer, seconds; `contract.deadline` may make it shorter.
        keeps_connection: whether a connection is used again.
        unix_socket: the one at which it is; None: it is where its URL says.
        trust: whose certificates count, for https; it is told to speak HTTP/1.1. None: those that the system trusts.
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
        self._kept: list[tuple[float, HTTPConnection]] = []  # since when, on a steady clock; the last one used last
        self._url, self._timeout_s, self._keeps_connection = urlsplit(url), timeout_s, keeps_connection
        self._unix_socket, self._most_bytes = unix_socket, most_bytes
        self._trust: ssl.SSLContext | None = None
        if self._url.scheme == "https":
            self._trust = trust or ssl.create_default_context()
            self._trust.set_alpn_protocols(["http/1.1"])

    def get(
        self, path: str, query: Mapping[str, str] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask once; twice where a connection that was kept has been closed. Raises one of FAILURES."""
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
        """The same with a form. What it asks for may be done twice.

        Args:
            timeout_s: longest wait for this answer, seconds; None: as for all.
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        sent = {**_FORM, **(headers or {})}
        return self._answered("POST", quote(path, safe=_OF_PATHS), urlencode(form).encode(), sent, limit_s)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept; the next question opens one."""
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
                except FAILURES:  # it closes what is not used, and all when it is started again
                    pass
            return self._asked(self._connected(), method, target, body, headers)

    def _taken(self) -> HTTPConnection | None:
        """One that is kept, for nobody else."""
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
            if answer.status < HTTPStatus.OK:  # the next one by this connection would be the answer to this question
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
        connection.default_port = usual  # it names any other to the service
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
    """Those of a host, for a socket. Raises OSError."""
    return [
        found
        for address in _NAMES.addresses(host, must_be_left_s())
        for found in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    ]


def _opened(addresses: Iterable[tuple[int, int, int, str, Any]]) -> socket.socket:
    """A connection to the first that takes one. One that is silent leaves time for the next. Raises OSError."""
    every = list(addresses)
    failure = OSError("it has no address")
    for left, (family, kind, protocol, _, address) in zip(range(len(every), 0, -1), every, strict=True):
        opened = socket.socket(family, kind, protocol)
        try:
            opened.settimeout(must_be_left_s() / left)
            opened.connect(address)
            if family != socket.AF_UNIX:
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a form follows its head at once
        except OSError as error:
            opened.close()
            failure = error
        except BaseException:
            opened.close()
            raise
        else:
            return opened
    raise failure
