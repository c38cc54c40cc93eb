"""The addresses of hosts, asked of the system, which takes as long as it likes: nobody here waits longer than told."""

import errno
import ipaddress
import os
import socket
import threading
from concurrent.futures import Future
from typing import Any


class Names:
    """Asks the system, for all who want the same host at one time once. Used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[str, Future[list[str]]] = {}

    def addresses(self, host: str, limit_s: float | None) -> list[str]:
        """Those of a host, as text.

        Raises: OSError; TimeoutError where nobody said them within `limit_s` seconds. Where this process or machine
            lacks a file to open, memory or a thread, `errno` says so.
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
                    raise OSError(errno.EAGAIN, f"nobody looked up the host {host}: {error}") from error
                self._asked[host] = found  # only now: nobody would ever answer one whose thread did not start
        try:
            return found.result(limit_s)
        except TimeoutError as error:
            raise TimeoutError(f"nobody said in time what address {host} has") from error
        except UnicodeError as error:  # it can be no host's name
            raise OSError(str(error)) from error

    def _ask(self, host: str, found: Future[list[str]]) -> None:
        try:
            every = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answer: list[str] | BaseException = list(dict.fromkeys(_written(address) for *_, address in every))
        except OSError as error:
            answer = _lack(host, error) or error
        except BaseException as error:  # noqa: BLE001 - it is raised by whoever waits
            answer = error
        with self._lock:
            del self._asked[host]
        if isinstance(answer, BaseException):
            found.set_exception(answer)
        else:
            found.set_result(answer)


def _lack(host: str, failure: OSError) -> OSError | None:
    """What was lacking here, where it is not the host's fault: the system's own codes do not say it."""
    if isinstance(failure, socket.gaierror) and failure.errno == socket.EAI_MEMORY:
        return OSError(errno.ENOMEM, f"nobody looked up the host {host}: {failure.strerror}")
    try:
        for end in os.pipe():
            os.close(end)
    except OSError as error:
        return OSError(error.errno, f"nobody looked up the host {host}: {error.strerror}")
    return None


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
