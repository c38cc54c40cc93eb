"""HTTP clients of the stack's own services. They ignore proxy settings: a proxy could not reach these services.

Their timeout covers a whole request, from the lookup of the host name to the last byte of the answer. httpx's own
timeouts cover each part: a server that sends a byte now and then could keep a client waiting without limit.
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
    """Make a client that ignores proxies and other settings of the environment.

    Args:
        timeout_s: longest wait for a whole answer, seconds; `contract.deadline` may make it shorter.
        keeps_connections: whether connections are reused; a restarted service may have closed them.
        unix_socket: the socket to which every request goes; None: to the host of its URL.
        login: sent with every request; None: no login.
        trust: the certificates to accept; None: those of the authorities that httpx knows.
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
    """The authorities that httpx trusts. Read once per process, because reading takes longer than most requests."""
    return httpx.create_ssl_context(trust_env=False)


class _Bounded(httpx.HTTPTransport):
    """Applies httpx's read timeout, which is for one part of an answer, to the whole answer."""

    def __init__(self, limits: httpx.Limits, trust: ssl.SSLContext | None, unix_socket: Path | None = None) -> None:
        import httpcore  # noqa: PLC0415 - httpx also imports it late: code that makes no client does without it

        from contract.network import Network  # noqa: PLC0415 - it imports httpcore

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
    """The parts of an answer's body, with one deadline for all of them."""

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
        # httpcore does not close its socket if the connection is refused, so a probe connects first.
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
    """Whether a GET of `url` succeeds. Any certificate is accepted."""
    with client(timeout_s=timeout_s, keeps_connections=False, trust=unchecked()) as once:
        try:
            return once.get(url).is_success
        except httpx.HTTPError:
            return False


def is_local(url: str) -> bool:
    """Whether `url` names this machine, by a loopback address or as `localhost`."""
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
    """Read the whole answer of a server that is not trusted.

    Args:
        most: the largest body that is accepted, bytes.

    Raises: httpx.HTTPError, also if the body is longer, or compressed, which could make it longer.
    """
    with http.stream(method, url, json=json, headers={**(headers or {}), "accept-encoding": "identity"}) as answer:
        parts, length = [], 0
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise httpx.DecodingError("it is compressed, which was not requested", request=answer.request)
        for part in answer.iter_raw():
            length += len(part)
            if length > most:
                raise httpx.ReadError(f"it is longer than {most:,} bytes", request=answer.request)
            parts.append(part)
        return httpx.Response(
            answer.status_code, headers=answer.headers, content=b"".join(parts), request=answer.request
        )
