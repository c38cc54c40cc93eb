"""Sends one command to a controller that has proved, on the same connection, that it knows the token."""

import hmac
import http.client
import json
import secrets
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from rollout.ui.callers import digest
from rollout.ui.proof import PROOF_PATH, id_of, proof_of

_LARGEST = 16 * 2**20  # of an answer, bytes


class NotProved(Exception):
    """What listens there is not a controller that knows the token; the message is what was seen."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a controller."""

    status: int
    content_type: str
    body: bytes


def command(
    url: str,
    path: str,
    *,
    token: str,
    body: Any,
    headers: Mapping[str, str],
    timeout_s: float,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """POST `body` as JSON. Without a token nothing is asked first: there is nothing to show.

    Args:
        timeout_s: longest wait for a whole answer, seconds.

    Raises: NotProved, OSError, http.client.HTTPException.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection = (
        http.client.HTTPSConnection(host, port, timeout=timeout_s, context=tls)
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=timeout_s)
    )
    try:
        connection.connect()
        to_server = connection.sock  # the connection forgets it once an answer says that it is the last
        if token:
            with _whole(to_server, timeout_s):
                _prove(connection, token)
            # A connection that was closed would be opened anew, to whoever listens there by then.
            connection.auto_open = 0
        sent = {"content-type": "application/json", "authorization": f"Bearer {token}", **headers}
        with _whole(to_server, timeout_s):
            connection.request("POST", path, json.dumps(body), sent)
            return _answer(connection)
    finally:
        connection.close()


@contextmanager
def _whole(to_server: socket.socket, timeout_s: float) -> Iterator[None]:
    """End what takes longer in all: the socket's own limit is for each part that comes. Raises TimeoutError."""
    is_late = threading.Event()

    def end() -> None:
        is_late.set()
        with suppress(OSError):  # it has ended by itself
            # Not that of TLS's own sockets, which first forgets the encryption: a token could then leave without it.
            socket.socket.shutdown(to_server, socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:  # what was read until then may be taken for another answer
        if is_late.is_set():
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
    if is_late.is_set():
        raise TimeoutError


def _prove(connection: http.client.HTTPConnection, token: str) -> None:
    known, nonce = digest(token), secrets.token_urlsafe(24)
    connection.request("GET", f"{PROOF_PATH}?{urlencode({'token': id_of(known), 'nonce': nonce})}")
    answer = _answer(connection)
    if not hmac.compare_digest(answer.body, proof_of(known, nonce).encode()):
        raise NotProved(f"HTTP {answer.status} instead of a proof that it knows this token")


def _answer(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    return Answer(response.status, response.getheader("content-type", ""), response.read(_LARGEST))
