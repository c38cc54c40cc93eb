"""Asks servers in the background whether they are ready, so that one that hangs keeps nobody waiting."""

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import httpx

from contract import loopback
from contract.http import READY_PATH

_TIMEOUT_S = 1.0
_FRESH_S = 0.4  # the controller asks several times in one beat
_AT_ONCE = 32


@dataclass(slots=True)
class _Probe:
    """The newest probe of one server."""

    pid: int  # of the server
    began_s: float
    running: Future[bool]
    is_ready: bool = False  # by the last answer, or because none came in time


class Probes:
    """Whether servers answer their readiness probe, by their URL."""

    def __init__(self) -> None:
        self._http = loopback.client(timeout_s=_TIMEOUT_S)
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="probe")
        self._newest: dict[str, _Probe] = {}

    def is_ready(self, url: str, pid: int) -> bool:
        """The last result of the process `pid`, at most 1.4 s old. Waits only where there is none yet, at most 1 s."""
        probe = self._newest.get(url)
        if probe is None or probe.pid != pid:
            probe = self._newest[url] = self._begin(url, pid)
            wait([probe.running])
        if probe.running.done():
            probe.is_ready = probe.running.result()
            if time.monotonic() - probe.began_s > _FRESH_S:
                self._newest[url] = self._begin(url, pid, probe.is_ready)
        return probe.is_ready

    def forget(self, url: str) -> None:
        """Another server may listen there later."""
        self._newest.pop(url, None)

    def _begin(self, url: str, pid: int, is_ready: bool = False) -> _Probe:
        return _Probe(pid, time.monotonic(), self._pool.submit(self._ask, url), is_ready)

    def _ask(self, url: str) -> bool:
        try:
            return self._http.get(f"{url}{READY_PATH}").is_success
        except httpx.HTTPError:
            return False
