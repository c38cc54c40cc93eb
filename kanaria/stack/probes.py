"""Asks servers in the background whether they are ready, so that one that hangs keeps nobody waiting."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus

from contract.polled import FAILURES, Polled
from contract.threads import begun_or_done
from kanaria.stack.shortage import is_shortage
from rollout.fleet import Backend, Readiness

_TIMEOUT_S = 1.0
_FRESH_S = 0.4  # the controller asks several times in one beat
_LATE_S = _TIMEOUT_S + _FRESH_S  # a question ends before
_AT_ONCE = 32
_SMALL = 65536  # bytes of an answer


@dataclass(slots=True)
class _Probe:
    """The newest probe of one server."""

    pid: int  # of the server
    began_s: float
    server: Polled  # no other probe asks it while this one runs
    running: Future[str]
    trouble: str = "no answer yet"  # by the last answer; empty: it is ready


class Probes:
    """What keeps servers from being ready, by their answers to their readiness probe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock  # seconds, never set
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="probe")
        self._newest: dict[str, _Probe] = {}  # by URL

    def trouble(self, backend: Backend, readiness: Readiness, pid: int) -> str:
        """Why the process `pid` is not ready, by its last answer; empty: it is.

        A look asks anew, for the next look, where the answer is older than 0.4 s. While that question has none, the
        answer before it counts, but 1.4 s after the question it counts as not answered. Waits only for a process's
        first answer, at most 1 s. The pid of a process of others is 0.

        Raises: OSError where it could not be asked, for want of a file to open or of memory here.
        """
        probe = self._newest.get(backend.url)
        if probe is None or probe.pid != pid:
            probe = self._newest[backend.url] = self._begun(polled(backend), backend, readiness, pid)
            wait([probe.running], _TIMEOUT_S)
        age_s = self._clock() - probe.began_s
        if probe.running.done():
            failure = probe.running.exception()
            if failure is None:
                probe.trouble = probe.running.result()
            if age_s > _FRESH_S:
                again = self._begun(probe.server, backend, readiness, pid)
                again.trouble = probe.trouble
                self._newest[backend.url] = again
            if failure is not None:
                raise failure
        elif age_s > _LATE_S:
            return f"{backend.url}{readiness.path} gives no answer: it takes too long"
        return probe.trouble

    def is_open(self, backend: Backend, readiness: Readiness) -> bool:
        """Whether a server that is ready says so to whoever lacks its secret. Waits for the answer, at most 1 s."""
        return not unready(polled(backend), replace(backend, secret=""), readiness)

    def forget(self, backend: Backend) -> None:
        """Another server may listen there later."""
        self._newest.pop(backend.url, None)

    def _begun(self, server: Polled, backend: Backend, readiness: Readiness, pid: int) -> _Probe:
        return _Probe(
            pid, self._clock(), server, begun_or_done(self._pool, partial(_asked, server, backend, readiness))
        )


def polled(backend: Backend, *, timeout_s: float = _TIMEOUT_S) -> Polled:
    """A server, to be asked whether it is ready."""
    return Polled(backend.url, timeout_s=timeout_s, most_bytes=_SMALL)  # what is at its path may have no end


def unready(server: Polled, backend: Backend, readiness: Readiness) -> str:
    """Why a server is not ready, by its answer now; empty: it is."""
    try:
        return _asked(server, backend, readiness)
    except OSError as error:
        return _no_answer(backend, readiness, error)


def _asked(server: Polled, backend: Backend, readiness: Readiness) -> str:
    """The same. Raises OSError where it is no fault of the server that it could not be asked."""
    try:
        status = server.get(readiness.path, headers=backend.headers).status
    except FAILURES as error:
        if is_shortage(error):
            raise
        return _no_answer(backend, readiness, error)
    return "" if HTTPStatus.OK <= status < readiness.below else f"{backend.url}{readiness.path} answers {status}"


def _no_answer(backend: Backend, readiness: Readiness, error: Exception) -> str:
    return f"{backend.url}{readiness.path} gives no answer: {str(error) or type(error).__name__}"
