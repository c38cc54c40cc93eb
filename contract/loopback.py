"""HTTP clients of the stack's own services. They use no proxy, whatever the environment says: none could reach them."""

import ipaddress
from collections.abc import Mapping

import httpx


def client(
    base_url: httpx.URL | str = "",
    *,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
    keeps_connections: bool = True,
) -> httpx.Client:
    """A client that honours neither proxies nor other settings of the environment.

    Args:
        timeout_s: longest wait for the next part of an answer, seconds.
        keeps_connections: whether a connection is used again, which a service that is restarted may have closed.
    """
    limits = httpx.Limits() if keeps_connections else httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(base_url=base_url, timeout=timeout_s, headers=headers, limits=limits, trust_env=False)


def answers(url: str, *, timeout_s: float) -> bool:
    """Whether a GET of `url` is answered with success."""
    with client(timeout_s=timeout_s, keeps_connections=False) as once:
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
