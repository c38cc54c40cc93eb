"""Looks up host names in the system with a time limit. The system itself has none."""

import errno
import ipaddress
import os
import socket
import threading
from concurrent.futures import Future
from typing import Any


class Names:
    """Looks up hosts; simultaneous questions about the same host share one lookup. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[str, Future[list[str]]] = {}

    def addresses(self, host: str, limit_s: float | None) -> list[str]:
        """The addresses of a host, as text.

        Raises: OSError; TimeoutError if the lookup takes longer than `limit_s` seconds. If this process or machine is
            out of file descriptors, memory or threads, `errno` says so.
        """
        if _is_address(host):
            return [host]
        with self._lock:
            found = self._asked.get(host)
            if found is None:
                found = Future()
                try:
                    threading.Thread(target=self._ask, args=(host, found), daemon=True).start()
                except RuntimeError as error:
                    raise OSError(errno.EAGAIN, f"could not look up the host {host}: {error}") from error
                self._asked[host] = found  # only after the thread has started: otherwise the future would never finish
        try:
            return found.result(limit_s)
        except TimeoutError as error:
            raise TimeoutError(f"looking up the host {host} took too long") from error
        except UnicodeError as error:  # the text cannot be a host name
            raise OSError(str(error)) from error

    def _ask(self, host: str, found: Future[list[str]]) -> None:
        try:
            every = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answer: list[str] | BaseException = list(dict.fromkeys(_written(address) for *_, address in every))
        except OSError as error:
            answer = _lack(host, error) or error
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
            answer = error
        with self._lock:
            del self._asked[host]
        if isinstance(answer, BaseException):
            found.set_exception(answer)
        else:
            found.set_result(answer)


def _lack(host: str, failure: OSError) -> OSError | None:
    """The error to raise if this machine lacked memory or a file descriptor; None: it is the host's fault.

    The codes of `getaddrinfo` do not tell these cases apart.
    """
    if isinstance(failure, socket.gaierror) and failure.errno == socket.EAI_MEMORY:
        return OSError(errno.ENOMEM, f"could not look up the host {host}: {failure.strerror}")
    try:
        for end in os.pipe():
            os.close(end)
    except OSError as error:
        return OSError(error.errno, f"could not look up the host {host}: {error.strerror}")
    return None


def _written(address: tuple[Any, ...]) -> str:
    """An address as the system gives it, with the interface of a link-local IPv6 address."""
    host, _, *more = address
    scope = more[-1] if more else 0
    return f"{host}%{scope}" if scope else str(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
