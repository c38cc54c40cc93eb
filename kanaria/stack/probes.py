"""Asks servers in the background whether they are ready, so that one that hangs keeps nobody waiting."""

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from http import HTTPStatus

from contract.polled import FAILURES, Polled
from rollout.fleet import Backend, Readiness

_TIMEOUT_S = 1.0
_FRESH_S = 0.4  # the controller asks several times in one beat
_AT_ONCE = 32
_SMALL = 65536  # bytes of an answer


@dataclass(slots=True)
class _Probe:
    """The newest probe of one server."""

    pid: int  # of the server
    began_s: float
    running: Future[str]
    trouble: str = "no answer yet"  # by the last answer; empty: it is ready


class Probes:
    """What keeps servers from being ready, by their answers to their readiness probe."""

    def __init__(self) -> None:
        self._polled: dict[str, Polled] = {}  # by URL
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="probe")
        self._newest: dict[str, _Probe] = {}

    def trouble(self, backend: Backend, readiness: Readiness, pid: int) -> str:
        """Why the process `pid` is not ready, by an answer at most 1.4 s old; empty: it is.

        Waits only where there is no answer yet, at most 1 s. The pid of a process of others is 0.
        """
        url = backend.url
        probe = self._newest.get(url)
        if probe is None or probe.pid != pid:
            probe = self._newest[url] = _Probe(pid, time.monotonic(), self._ask(backend, readiness))
            wait([probe.running], _TIMEOUT_S)  # to look up a name may take longer
        if probe.running.done():
            probe.trouble = probe.running.result()
            if time.monotonic() - probe.began_s > _FRESH_S:
                self._newest[url] = _Probe(pid, time.monotonic(), self._ask(backend, readiness), probe.trouble)
        return probe.trouble

    def is_open(self, backend: Backend, readiness: Readiness) -> bool:
        """Whether a server that is ready says so to whoever lacks its secret. Waits for the answer, at most 1 s."""
        return not unready(polled(backend), replace(backend, secret=""), readiness)

    def forget(self, backend: Backend) -> None:
        """Another server may listen there later."""
        self._newest.pop(backend.url, None)
        self._polled.pop(backend.url, None)

    def close(self) -> None:
        """Ask no more."""
        self._pool.shutdown()
        self._polled.clear()

    def _ask(self, backend: Backend, readiness: Readiness) -> Future[str]:
        server = self._polled.setdefault(backend.url, polled(backend))
        return self._pool.submit(unready, server, backend, readiness)


def polled(backend: Backend, *, timeout_s: float = _TIMEOUT_S) -> Polled:
    """A server, to be asked whether it is ready."""
    return Polled(backend.url, timeout_s=timeout_s, most_bytes=_SMALL)  # what is at its path may have no end


def unready(server: Polled, backend: Backend, readiness: Readiness) -> str:
    """Why a server is not ready, by its answer now; empty: it is."""
    url = f"{backend.url}{readiness.path}"
    try:
        status = server.get(readiness.path, headers=backend.headers).status
    except FAILURES as error:
        return f"{url} gives no answer: {str(error) or type(error).__name__}"
    return "" if HTTPStatus.OK <= status < readiness.below else f"{url} answers {status}"
