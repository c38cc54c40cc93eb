"""Takes certificates that were renewed, without a restart: new connections have the new one, those of before go on."""

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.certificates import Certificate, controller_certificate, gateway_certificate, keep
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.envoy.tls import write_certificate

log = structlog.get_logger()

_EVERY_S = 10.0


@dataclass(slots=True)
class Renewed:
    """One service whose certificate may change.

    Args:
        read: the certificate in the files of the settings; raises SetupError while they cannot be used.
        take: puts one in force; raises OSError.
        known: that in force; None: it is not known.
    """

    of: str
    read: Callable[[], Certificate | None]
    take: Callable[[Certificate], None]
    known: Certificate | None = None
    trouble: str = ""  # what was logged last

    def look(self) -> None:
        """Take the certificate if it is another one that can be used. One that cannot leaves the one in force."""
        try:
            found = self.read()
            if found is None or (self.known and (found.chain, found.key) == (self.known.chain, self.known.key)):
                self.trouble = ""
                return
            self.take(found)
        except (SetupError, OSError) as error:
            if str(error) != self.trouble:
                self.trouble = str(error)
                log.error("certificate_not_taken", of=self.of, reason=self.trouble)  # noqa: TRY400 - one sentence says it
            return
        self.known, self.trouble = found, ""
        log.info("certificate_taken", of=self.of, names=found.names, until=found.until.isoformat())


def certificate_watch(
    settings: Settings, gateway: GatewaySettings, controller: ssl.SSLContext | None
) -> "CertificateWatch":
    """For the services of one stack that speak TLS; `controller` is the context with which the controller listens."""

    def give_to_gateway(certificate: Certificate) -> None:
        write_certificate(gateway, chain=certificate.chain, key=certificate.key)

    def give_to_controller(certificate: Certificate) -> None:
        keep(settings, certificate)
        if controller is not None:
            controller.load_cert_chain(settings.controller_certificate, settings.controller_key)

    watched = []
    if gateway.has_tls:
        watched.append(Renewed("gateway", lambda: gateway_certificate(settings), give_to_gateway))
    if controller is not None:
        watched.append(Renewed("controller", lambda: controller_certificate(settings), give_to_controller))
    return CertificateWatch(*watched)


class CertificateWatch(threading.Thread):
    """Looks at the files of some services until `stop`."""

    def __init__(self, *watched: Renewed, every_s: float = _EVERY_S) -> None:
        super().__init__(name="certificates", daemon=True)
        self._watched, self._every_s = watched, every_s
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self.look()
            except Exception:
                log.exception("certificate_watch_failed")

    def look(self) -> None:
        """Take what was renewed."""
        for one in self._watched:
            one.look()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self.is_alive():
            self.join()
