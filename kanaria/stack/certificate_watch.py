"""Loads renewed certificates without a restart: new connections use the new one, existing ones go on.

A certificate counts as taken when new clients get it, not when it was handed to the server.
"""

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from contract.tls import Validity
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.certificates import (
    Certificate,
    controller_certificate,
    gateway_certificate,
    keep,
    shown_by_controller,
)
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.envoy.tls import shown_by_gateway, write_certificate

log = structlog.get_logger()

_EVERY_S = 10.0
_IMPATIENT_S = 1.0  # between looks while new clients do not get the new certificate yet
_LATE_S = 20.0  # after this it is logged

Tell = Callable[[str, Validity], None]  # the service, and the certificate that new clients get


@dataclass(slots=True)
class Renewed:
    """Renews the certificate of one service.

    Args:
        read: returns the certificate in the files of the settings; raises SetupError while they cannot be used.
        take: hands a certificate to the service; raises OSError.
        shown: returns the certificate that new clients get; None if unknown. Raises OSError and ValueError.
        tell: called with that at each look.
    """

    of: str
    read: Callable[[], Certificate | None]
    take: Callable[[Certificate], None]
    shown: Callable[[], Validity | None]
    tell: Tell
    clock: Callable[[], float] = time.monotonic
    handed_over: Certificate | None = None
    late_at_s: float = 0.0
    is_settled: bool = True  # new clients get what was handed over
    trouble: str = ""  # the last logged problem

    def look(self) -> None:
        """Take the certificate in the files if it is new and usable. An unusable one leaves the current one in use."""
        try:
            found = self.read()
            if found is not None and (self.handed_over is None or _files(found) != _files(self.handed_over)):
                self.take(found)
                self.handed_over, self.is_settled, self.late_at_s = found, False, self.clock() + _LATE_S
            elif self.is_settled:
                self.trouble = ""
        except (SetupError, OSError) as error:
            self._say("certificate_not_taken", str(error))
        self._compare()

    def _compare(self) -> None:
        """Check which certificate new clients get, and log once whether it is the one that was handed over."""
        try:
            shown = self.shown()
        except (OSError, ValueError):
            shown = None
        if shown is not None:
            self.tell(self.of, shown)
        if self.is_settled or self.handed_over is None:
            return
        if shown == self.handed_over.validity:
            self.is_settled, self.trouble = True, ""
            until = shown.until.isoformat()
            log.info("certificate_taken", of=self.of, names=self.handed_over.names, until=until)
        elif self.clock() >= self.late_at_s:
            seen = f"one until {shown.until.isoformat()}" if shown else "nothing"
            self._say("certificate_not_shown", f"{seen}, not one until {self.handed_over.validity.until.isoformat()}")

    def _say(self, event: str, reason: str) -> None:
        if reason != self.trouble:
            self.trouble = reason
            log.error(event, of=self.of, reason=reason)


def _files(of: Certificate) -> tuple[str, str]:
    return of.chain, of.key


def certificate_watch(
    settings: Settings, gateway: GatewaySettings, controller: ssl.SSLContext | None, *, tell: Tell
) -> "CertificateWatch":
    """The watch of a stack's services that speak TLS; `controller` is the TLS context of the controller."""

    def give_to_gateway(certificate: Certificate) -> None:
        write_certificate(gateway, chain=certificate.chain, key=certificate.key)

    def give_to_controller(certificate: Certificate) -> None:
        keep(settings, certificate)
        if controller is not None:
            controller.load_cert_chain(settings.controller_certificate, settings.controller_key)

    watched = []
    if gateway.has_tls:
        watched.append(
            Renewed(
                "gateway",
                lambda: gateway_certificate(settings),
                give_to_gateway,
                lambda: shown_by_gateway(gateway),
                tell,
            )
        )
    if controller is not None:
        watched.append(
            Renewed(
                "controller",
                lambda: controller_certificate(settings),
                give_to_controller,
                lambda: shown_by_controller(settings),
                tell,
            )
        )
    return CertificateWatch(*watched)


class CertificateWatch(threading.Thread):
    """A thread that looks at the certificate files of some services until `stop`."""

    def __init__(self, *watched: Renewed, every_s: float = _EVERY_S) -> None:
        super().__init__(name="certificates", daemon=True)
        self._watched, self._every_s = watched, every_s
        self._stopped = threading.Event()

    def run(self) -> None:
        wait_s = min(_IMPATIENT_S, self._every_s)
        while not self._stopped.wait(wait_s):
            try:
                self.look()
            except Exception:
                log.exception("certificate_watch_failed")
            is_settled = all(one.is_settled for one in self._watched)
            wait_s = self._every_s if is_settled else min(_IMPATIENT_S, self._every_s)

    def look(self) -> None:
        """Take every renewed certificate."""
        for one in self._watched:
            one.look()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self.is_alive():
            self.join()
