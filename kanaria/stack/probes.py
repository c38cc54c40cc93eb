"""Runs readiness probes in the background, so that a server that hangs does not delay the controller."""

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
_FRESH_S = 0.4  # the controller asks several times per tick
_LATE_S = _TIMEOUT_S + _FRESH_S  # after this a probe counts as not answered
_AT_ONCE = 32
_SMALL = 65536  # bytes of an answer


@dataclass(slots=True)
class _Probe:
    """The latest probe of one server."""

    pid: int  # the server's pid
    began_s: float
    server: Polled  # used by one probe at a time
    running: Future[str]
    trouble: str = "no answer yet"  # why it is not ready, by the last answer; empty: it is ready


class Probes:
    """Whether servers are ready, by their answers to the readiness probe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock  # seconds, monotonic
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="probe")
        self._newest: dict[str, _Probe] = {}  # by URL

    def trouble(self, backend: Backend, readiness: Readiness, pid: int) -> str:
        """Why the process `pid` is not ready, by its last answer; empty if it is.

        If the answer is older than 0.4 s, a call starts a new probe for the next call. Until that probe is answered,
        the previous answer counts; 1.4 s after its start the probe counts as not answered. A call waits only for a
        process's first answer, at most 1 s. For a server that Kanaria does not run, `pid` is 0.

        Raises: OSError if this machine is out of file descriptors or memory for a probe.
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
        """Whether a ready server answers a probe without its secret. Waits for the answer, at most 1 s."""
        return not unready(polled(backend), replace(backend, secret=""), readiness)

    def forget(self, backend: Backend) -> None:
        """Forget a server: another one may listen there later."""
        self._newest.pop(backend.url, None)

    def _begun(self, server: Polled, backend: Backend, readiness: Readiness, pid: int) -> _Probe:
        return _Probe(
            pid, self._clock(), server, begun_or_done(self._pool, partial(_asked, server, backend, readiness))
        )


def polled(backend: Backend, *, timeout_s: float = _TIMEOUT_S) -> Polled:
    """A connection for readiness probes of a server."""
    return Polled(backend.url, timeout_s=timeout_s, most_bytes=_SMALL)  # the answer may be endless


def unready(server: Polled, backend: Backend, readiness: Readiness) -> str:
    """Why a server is not ready, by a probe now; empty if it is."""
    try:
        return _asked(server, backend, readiness)
    except OSError as error:
        return _no_answer(backend, readiness, error)


def _asked(server: Polled, backend: Backend, readiness: Readiness) -> str:
    """The same. Raises OSError if this machine, not the server, is the cause of a failure."""
    try:
        status = server.get(readiness.path, headers=backend.headers).status
    except FAILURES as error:
        if is_shortage(error):
            raise
        return _no_answer(backend, readiness, error)
    return "" if HTTPStatus.OK <= status < readiness.below else f"{backend.url}{readiness.path} answers {status}"


def _no_answer(backend: Backend, readiness: Readiness, error: Exception) -> str:
    return f"{backend.url}{readiness.path} gives no answer: {str(error) or type(error).__name__}"
