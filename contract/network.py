"""Connections that keep to `contract.deadline`: a server cannot stall a client by sending a byte now and then."""

import math
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

from contract.deadline import left_s
from contract.names import Names

_PART = 65536  # bytes that are sent at once


class Network(httpcore.NetworkBackend):
    """Connects to a host, trying its addresses one after another."""

    def __init__(self) -> None:
        self._sockets, self._names = httpcore.SyncBackend(), Names()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> "_Stream":
        """Connect to the first address that accepts; a silent address leaves time for the others.

        Raises: httpcore.ConnectError, httpcore.ConnectTimeout.
        """
        addresses = self._addresses(host, _limit(timeout, httpcore.ConnectTimeout))
        for left in range(len(addresses), 0, -1):
            limit_s = _limit(timeout, httpcore.ConnectTimeout)
            share_s = None if limit_s is None else limit_s / left
            try:
                return _Stream(
                    self._sockets.connect_tcp(addresses[-left], port, share_s, local_address, socket_options)
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if left == 1:
                    raise
        raise httpcore.ConnectError(f"the name {host} has no address")

    def _addresses(self, host: str, limit_s: float | None) -> list[str]:
        try:
            return self._names.addresses(host, limit_s)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> "_Stream":
        limit_s = _limit(timeout, httpcore.ConnectTimeout)
        return _Stream(self._sockets.connect_unix_socket(path, limit_s, socket_options))


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _limit(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for begin in range(0, len(buffer), _PART):
            self._stream.write(buffer[begin : begin + _PART], _limit(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "_Stream":
        limit_s = _limit(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, limit_s))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _limit(timeout: float | None, too_late: type[httpcore.TimeoutException]) -> float | None:
    """Seconds that a call may wait; None: without limit. Raises `too_late` if there are none."""
    limit_s = left_s(math.inf if timeout is None else timeout)
    if not limit_s:
        raise too_late("the whole request took too long")
    return None if math.isinf(limit_s) else limit_s
