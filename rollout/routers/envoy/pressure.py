"""Writes how full the gateway is to a file. The fuller it is, the sooner Envoy closes idle connections.

Envoy's own connection monitor only rejects new connections and triggers nothing else.
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
    """Keeps this file up to date for one gateway."""

    def __init__(self, settings: GatewaySettings, *, timeout_s: float = 1.0) -> None:
        self._settings = settings
        self._admin = admin.polled(settings, timeout_s=timeout_s)
        self._told: str | None = None
        self.is_full = False  # as of the last count; then the gateway may reject clients

    def tell(self) -> None:
        """Count the gateway's connections and write the share. Without an answer, the file stays. Raises OSError."""
        try:
            answer = self._admin.get("/stats", _ASKED)
        except FAILURES:
            self.is_full = False
            return
        if not answer.is_success:
            self.is_full = False
            return
        name, _, active = answer.body.decode(errors="replace").strip().partition(": ")
        if name != _ACTIVE:  # a gateway of an earlier version: it cannot be counted, so its clients are left alone
            self.is_full = True
            return
        share = f"{min(1.0, int(active) / self._settings.max_connections):.2f}"
        self.is_full = float(share) >= SHORTEST_FROM
        if share != self._told:
            write_pressure(self._settings, share)
            self._told = share


def write_pressure(settings: GatewaySettings, share: str) -> None:
    """Write the share of the gateway's connections in use, 0 to 1, to its file. Raises OSError."""
    write_whole(settings.pressure_path, share)
