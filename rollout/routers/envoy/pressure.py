"""How full the gateway is. Envoy reads it from a file, and closes idle connections the sooner the fuller it is.

Envoy's own monitor of connections turns new ones away, and triggers nothing.
"""

import re

import structlog

from contract.files import write_whole
from contract.polled import FAILURES
from rollout.routers.envoy import admin
from rollout.routers.envoy.connections import SHORTEST_FROM
from rollout.routers.envoy.settings import GatewaySettings

log = structlog.get_logger()

_ACTIVE = "http.gateway.downstream_cx_active"
_ASKED = {"filter": f"^{re.escape(_ACTIVE)}$", "type": "Gauges"}


class Pressure:
    """Keeps that file up to date for one gateway."""

    def __init__(self, settings: GatewaySettings, *, timeout_s: float = 1.0) -> None:
        self._settings = settings
        self._admin = admin.polled(settings, timeout_s=timeout_s)
        self._told: str | None = None
        self.is_full = False  # as of the last count; it may turn clients away

    def tell(self) -> None:
        """Count the gateway's connections, and tell it. One that gives no answer goes on as before. Raises OSError."""
        try:
            answer = self._admin.get("/stats", _ASKED)
        except FAILURES:
            self.is_full = False
            return
        if not answer.is_success:
            self.is_full = False
            return
        name, _, active = answer.body.decode(errors="replace").strip().partition(": ")
        if name != _ACTIVE:  # of an earlier version: it cannot be counted, so its clients are spared
            self.is_full = True
            return
        share = f"{min(1.0, int(active) / self._settings.max_connections):.2f}"
        self.is_full = float(share) >= SHORTEST_FROM
        if share != self._told:
            write_pressure(self._settings, share)
            self._told = share


def write_pressure(settings: GatewaySettings, share: str) -> None:
    """Tell the gateway that this share of its connections is taken, between 0 and 1. Raises OSError."""
    write_whole(settings.pressure_path, share)
