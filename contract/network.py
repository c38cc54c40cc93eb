"""Connections that keep to `contract.deadline`: a server that sends a byte now and then keeps nobody waiting."""

import ipaddress
import math
import socket
import ssl
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

import httpcore

from contract.deadline import left_s

_PART = 65536  # bytes that are sent at once


class Network(httpcore.NetworkBackend):
    """Looks up names, and connects to one of their addresses after the other."""

    def __init__(self) -> None:
        self._sockets, self._names = httpcore.SyncBackend(), _Names()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> "_Stream":
        """Raises httpcore.ConnectError, httpcore.ConnectTimeout. An address that is silent leaves time for the next."""
        addresses = self._names.addresses(host, _limit(timeout, httpcore.ConnectTimeout))
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


class _Names:
    """Asks the system for the addresses of hosts, which takes as long as it likes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[str, Future[list[str]]] = {}

    def addresses(self, host: str, limit_s: float | None) -> list[str]:
        """Raises httpcore.ConnectError, httpcore.ConnectTimeout."""
        if _is_address(host):
            return [host]
        with self._lock:
            found = self._asked.get(host)
            if found is None:
                found = Future()
                try:
                    threading.Thread(target=self._ask, args=(host, found), daemon=True).start()
                except RuntimeError as error:
                    raise httpcore.ConnectError(f"nobody looked up the host {host}: {error}") from error
                self._asked[host] = found  # only now: nobody would ever answer one whose thread did not start
        try:
            return found.result(limit_s)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"nobody said in time what address {host} has") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error

    def _ask(self, host: str, found: Future[list[str]]) -> None:
        try:
            every = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answer: list[str] | BaseException = list(dict.fromkeys(_written(address) for *_, address in every))
        except BaseException as error:  # noqa: BLE001 - it is raised by whoever waits
            answer = error
        with self._lock:
            del self._asked[host]
        if isinstance(answer, BaseException):
            found.set_exception(answer)
        else:
            found.set_result(answer)


def _written(address: tuple[Any, ...]) -> str:
    """An address as the system gives it, with the interface that a link-local one of IPv6 holds for."""
    host, _, *more = address
    scope = more[-1] if more else 0
    return f"{host}%{scope}" if scope else str(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _limit(timeout: float | None, too_late: type[httpcore.TimeoutException]) -> float | None:
    """Seconds that a call may wait; None: without end. Raises `too_late` where there are none."""
    limit_s = left_s(math.inf if timeout is None else timeout)
    if not limit_s:
        raise too_late("it took too long in all")
    return None if math.isinf(limit_s) else limit_s
