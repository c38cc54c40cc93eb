"""The controller as Prometheus and Alertmanager know it where it speaks TLS."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Trusted:
    """A service with a certificate."""

    certificate: Path  # they read it anew when it changes
    host: str  # for which it is, whatever its address

    @property
    def tls_config(self) -> dict[str, str]:
        """As both write it."""
        return {"ca_file": str(self.certificate), "server_name": self.host}
