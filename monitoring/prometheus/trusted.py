"""The controller's certificate, for Prometheus and Alertmanager if the controller speaks TLS."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Trusted:
    """A service with a certificate."""

    certificate: Path  # Prometheus and Alertmanager read it again when it changes
    host: str  # the host name in the certificate, whatever the address

    @property
    def tls_config(self) -> dict[str, str]:
        """The section `tls_config`, which both programs share."""
        return {"ca_file": str(self.certificate), "server_name": self.host}
