"""Sends one command to a controller that has proved, on the same connection, that it knows the token."""

import hmac
import http.client
import json
import secrets
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from contract.deadline import within
from contract.in_time import InTime
from contract.polled import Answer
from rollout.ui.callers import digest
from rollout.ui.proof import PROOF_PATH, id_of, proof_of

_LARGEST = 16 * 2**20  # of an answer, bytes


class NotProved(Exception):
    """The listener is not a controller that knows the token; the message says what was seen."""


class NotSent(ConnectionError):
    """The connection was closed before the command was sent."""


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
    """POST `body` as JSON. Without a token no proof is asked for, because there is no secret to protect.

    Args:
        timeout_s: longest wait for a whole answer, seconds.

    Raises: NotProved, NotSent, OSError, http.client.HTTPException.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection = (
        http.client.HTTPSConnection(host, port, timeout=timeout_s, context=tls)
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=timeout_s)
    )
    try:
        try:
            connection.connect()
            connection.sock = InTime(connection.sock)  # the connection's own timeout is for each received part
            if token:
                with within(timeout_s):
                    _prove(connection, token)
        except ConnectionRefusedError:
            raise
        except (ConnectionError, http.client.IncompleteRead) as error:
            raise NotSent(str(error) or type(error).__name__) from error
        if token:
            # http.client would reopen a closed connection, and another process may listen there by then.
            connection.auto_open = 0
        sent = {"content-type": "application/json", "authorization": f"Bearer {token}", **headers}
        with within(timeout_s):
            connection.request("POST", path, json.dumps(body), sent)
            return _answer(connection)
    finally:
        connection.close()


def _prove(connection: http.client.HTTPConnection, token: str) -> None:
    known, nonce = digest(token), secrets.token_urlsafe(24)
    connection.request("GET", f"{PROOF_PATH}?{urlencode({'token': id_of(known), 'nonce': nonce})}")
    answer = _answer(connection)
    if not hmac.compare_digest(answer.body, proof_of(known, nonce).encode()):
        raise NotProved(f"HTTP {answer.status} instead of a proof that it knows this token")


def _answer(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    return Answer(response.status, response.read(_LARGEST), response.getheader("content-type", ""))
