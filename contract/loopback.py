"""HTTP clients of the stack's own services. They use no proxy, whatever the environment says: none could reach them.

A timeout of theirs is for all of a request, from its host's name to the last byte of its answer. httpx's own are for
each part that is waited for: a server that sends a byte now and then keeps its clients for as long as it likes.
"""

import ipaddress
import math
import socket
import ssl
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import httpx

from contract.deadline import by, until_s, within
from contract.login import Login
from contract.tls import unchecked

Client = httpx.Client  # as `client` makes it


def client(
    base_url: httpx.URL | str = "",
    *,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
    keeps_connections: bool = True,
    unix_socket: Path | None = None,
    login: Login | None = None,
    trust: ssl.SSLContext | None = None,
) -> Client:
    """A client that honours neither proxies nor other settings of the environment.

    Args:
        timeout_s: longest wait for a whole answer, seconds; `contract.deadline` may make it shorter.
        keeps_connections: whether a connection is used again, which a service that is restarted may have closed.
        unix_socket: the one at which every host is; None: each is where its URL says.
        login: what every request brings; None: nothing.
        trust: whose certificates count; None: those that httpx knows.
    """
    limits = httpx.Limits() if keeps_connections else httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(
        base_url=base_url,
        timeout=timeout_s,
        headers=headers,
        trust_env=False,
        transport=_Bounded(limits, trust) if unix_socket is None else _AtSocket(limits, trust, unix_socket),
        auth=None if login is None else _LoggedIn(login),
    )


@cache
def public_authorities() -> ssl.SSLContext:
    """Whose certificates httpx takes. Read once in a process: that takes longer than most requests."""
    return httpx.create_ssl_context(trust_env=False)


class _Bounded(httpx.HTTPTransport):
    """Keeps what httpx takes for the longest wait for a part of an answer for all of it."""

    def __init__(self, limits: httpx.Limits, trust: ssl.SSLContext | None, unix_socket: Path | None = None) -> None:
        import httpcore  # noqa: PLC0415 - httpx does so, too: who makes no client does without

        from contract.network import Network  # noqa: PLC0415 - likewise

        self._pool = httpcore.ConnectionPool(
            ssl_context=public_authorities() if trust is None else trust,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            uds=None if unix_socket is None else str(unix_socket),
            network_backend=Network(),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        limit_s = request.extensions["timeout"]["read"]
        with within(math.inf if limit_s is None else limit_s):
            response = super().handle_request(request)
            response.stream = _Parts(cast("httpx.SyncByteStream", response.stream), until_s())
        return response


class _Parts(httpx.SyncByteStream):
    """The parts of an answer's body, each read by the same time."""

    def __init__(self, stream: httpx.SyncByteStream, until_s: float) -> None:
        self._stream, self._until_s = stream, until_s

    def __iter__(self) -> Iterator[bytes]:
        parts = iter(self._stream)
        while True:
            with by(self._until_s):
                part = next(parts, None)
            if part is None:
                return
            yield part

    def close(self) -> None:
        self._stream.close()


class _AtSocket(_Bounded):
    """Sends every request to one Unix socket."""

    def __init__(self, limits: httpx.Limits, trust: ssl.SSLContext | None, unix_socket: Path) -> None:
        super().__init__(limits, trust, unix_socket)
        self._path = str(unix_socket)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        # httpcore does not close a socket at which nobody listens.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(request.extensions["timeout"]["connect"])
            try:
                probe.connect(self._path)
            except OSError as error:
                raise httpx.ConnectError(f"{error} at {self._path}", request=request) from error
        return super().handle_request(request)


class _LoggedIn(httpx.Auth):
    def __init__(self, login: Login) -> None:
        self._login = login

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override] # it sends nothing
        try:
            request.headers["authorization"] = self._login.header()
        except (OSError, ValueError) as error:
            raise httpx.RequestError(f"the login cannot be read: {error}", request=request) from error
        yield request


def answers(url: str, *, timeout_s: float) -> bool:
    """Whether a GET of `url` is answered with success, whatever certificate there is."""
    with client(timeout_s=timeout_s, keeps_connections=False, trust=unchecked()) as once:
        try:
            return once.get(url).is_success
        except httpx.HTTPError:
            return False


def is_local(url: str) -> bool:
    """Whether `url` is about this machine, by its loopback address or as `localhost`."""
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def whole(
    http: Client,
    url: httpx.URL | str,
    *,
    most: int,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    json: Any = None,
) -> httpx.Response:
    """An answer of a server that may be anybody's, read to its end.

    Args:
        most: bytes that it may have.

    Raises: httpx.HTTPError, also where it is longer, or packed, which could make it longer.
    """
    with http.stream(method, url, json=json, headers={**(headers or {}), "accept-encoding": "identity"}) as answer:
        parts, length = [], 0
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise httpx.DecodingError("it is packed, and nobody asked for that", request=answer.request)
        for part in answer.iter_raw():
            length += len(part)
            if length > most:
                raise httpx.ReadError(f"it is longer than {most:,} bytes", request=answer.request)
            parts.append(part)
        return httpx.Response(
            answer.status_code, headers=answer.headers, content=b"".join(parts), request=answer.request
        )
