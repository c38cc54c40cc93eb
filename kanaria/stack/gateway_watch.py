"""Checks in the background whether the gateway accepts new clients, and restarts a gateway that does not answer.

A live gateway may not answer: it hangs, its listeners were drained, or it has no certificate. A gateway that refuses
clients because it is full is not restarted, which would disconnect the clients that it serves. It gets a measure of how
full it is, so that it closes idle connections.
"""

import ssl
import threading
import time
from collections.abc import Callable
from http.client import HTTPException

import structlog

from contract.http import LIVE_PATH
from contract.polled import FAILURES, Polled
from contract.tls import unchecked
from rollout.format import span
from rollout.routers.router import GatewayHealth

log = structlog.get_logger()

_EVERY_S = 1.0
_TIMEOUT_S = 3.0
_SAID_AFTER_S = 2.0  # a killed gateway is back sooner
_LONGEST_WAIT_S = 300.0  # between two restarts that did not help


class GatewayWatch(threading.Thread):
    """A thread that keeps a `GatewayState` up to date until `stop`.

    Args:
        url: the gateway's URL.
        restart: restarts the gateway's process.
        tell: reports to the gateway how full it is, before each look.
        is_full: whether the gateway was full then.
        clock: a monotonic clock, seconds.
        restarted_after_s: silence before a restart, seconds; doubles after each restart that did not help.
    """

    def __init__(
        self,
        url: str,
        *,
        restart: Callable[[], None],
        tell: Callable[[], None] = lambda: None,
        is_full: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        restarted_after_s: float = 15.0,
    ) -> None:
        super().__init__(name="gateway-watch", daemon=True)
        self._restart, self._tell, self._clock, self._is_full = restart, tell, clock, is_full
        # A new connection each time, as new clients open one.
        self._gateway = Polled(url, timeout_s=_TIMEOUT_S, keeps_connection=False, trust=unchecked())
        self._stopped = threading.Event()
        self.health = GatewayHealth.UNKNOWN
        self._since_s = clock()  # since when it has accepted clients, or has not
        self._first_wait_s = self._wait_s = restarted_after_s
        self._restart_at_s = self._since_s + self._wait_s

    @property
    def unanswered_s(self) -> float:
        """How long it has accepted no new client, seconds; 0 if it does."""
        is_away = self.health in (GatewayHealth.SILENT, GatewayHealth.FULL)
        return self._clock() - self._since_s if is_away else 0.0

    @property
    def trouble(self) -> str | None:
        """What is wrong with the gateway; None while it may be a blip."""
        unanswered_s = self.unanswered_s
        if unanswered_s < _SAID_AFTER_S:
            return None
        if self.health is GatewayHealth.FULL:
            return f"the gateway has refused new clients for {span(unanswered_s)}: it has as many as it accepts"
        left_s = max(0.0, self._restart_at_s - self._clock())
        return f"the gateway has not answered for {span(unanswered_s)}; it is restarted in {span(left_s)}"

    def run(self) -> None:
        while not self._stopped.wait(_EVERY_S):
            for do in (self._tell, self.look):
                try:
                    do()
                except Exception:
                    log.exception("gateway_watch_failed")

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self.is_alive():
            self.join()

    def look(self) -> None:
        """Ask the gateway once, and restart it if it has been silent for too long."""
        before, found = self.health, self._asked()
        now_s = self._clock()
        if found is not before:
            log.info("gateway", health=found.value, before=before.value)
        if found is GatewayHealth.READY or before in (GatewayHealth.READY, GatewayHealth.UNKNOWN):
            self._since_s = now_s
        if found is GatewayHealth.READY:
            self._wait_s = self._first_wait_s
        if found is not GatewayHealth.SILENT or before is not GatewayHealth.SILENT:
            self._restart_at_s = now_s + self._wait_s
        self.health = found
        if now_s >= self._restart_at_s and not self._stopped.is_set():
            log.warning("gateway_restarted", silent_s=round(now_s - self._since_s, 1))
            self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)
            self._restart_at_s = now_s + self._wait_s
            self._restart()

    def _asked(self) -> GatewayHealth:
        try:
            self._gateway.get(LIVE_PATH)
        except FAILURES as error:
            return GatewayHealth.FULL if _was_taken(error) and self._is_full() else GatewayHealth.SILENT
        return GatewayHealth.READY


def _was_taken(error: Exception) -> bool:
    """Whether the connection was accepted, and then closed before the answer or in the TLS handshake."""
    is_closed = isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError)
    return is_closed or isinstance(error, ssl.SSLError | HTTPException)
