"""HTTP clients of the stack's own services. They use no proxy, whatever the environment says: none could reach them."""

import ipaddress
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

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
        timeout_s: longest wait for the next part of an answer, seconds.
        keeps_connections: whether a connection is used again, which a service that is restarted may have closed.
        unix_socket: the one at which every host is; None: each is where its URL says.
        login: what every request brings; None: nothing.
        trust: whose certificates count; None: those that httpx knows.
    """
    limits = httpx.Limits() if keeps_connections else httpx.Limits(max_keepalive_connections=0)
    transport = None if unix_socket is None else _AtSocket(unix_socket, limits)
    return httpx.Client(
        base_url=base_url,
        timeout=timeout_s,
        headers=headers,
        limits=limits,
        trust_env=False,
        transport=transport,
        auth=None if login is None else _LoggedIn(login),
        verify=True if trust is None else trust,
    )


class _AtSocket(httpx.HTTPTransport):
    """Sends every request to one Unix socket."""

    def __init__(self, path: Path, limits: httpx.Limits) -> None:
        super().__init__(uds=str(path), limits=limits, trust_env=False)
        self._path = str(path)

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
