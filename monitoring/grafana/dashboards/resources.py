"""The other resources of Kanaria in a Grafana: folder, data source and contact point, in Grafana's own format.

They are the same whether they are pushed through the API or read from provisioning files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from monitoring.grafana.dashboards.style import DATA_SOURCE_UID

FOLDER_UID, FOLDER_TITLE = "kanaria", "Kanaria"
CONTACT_UID, CONTACT_NAME = "kanaria-controller", "Kanaria's controller"

HEADER_NAME, OF_AUTHORITY = "httpHeaderName", "tlsAuthWithCACert"  # Grafana's settings of what it sends and trusts

Document = dict[str, object]


@dataclass(frozen=True, slots=True)
class DataSource:
    """The Prometheus that the boards query, at the address that Grafana uses."""

    url: str
    scrape_interval_s: float
    authorization: str | None = None  # the `authorization` header that Grafana sends; None: none
    authority: str | None = None  # the PEM certificates of its authority; None: an authority that Grafana knows
    headers: Mapping[str, str] = field(default_factory=dict)  # further headers of each query

    @property
    def _sent(self) -> dict[str, str]:
        return ({} if self.authorization is None else {"Authorization": self.authorization}) | dict(self.headers)

    @property
    def document(self) -> Document:
        settings: Document = {"httpMethod": "POST", "timeInterval": f"{self.scrape_interval_s:g}s"}
        settings |= {f"{HEADER_NAME}{number}": name for number, name in enumerate(self._sent, start=1)}
        if self.authority is not None:
            settings[OF_AUTHORITY] = True
        return {
            "uid": DATA_SOURCE_UID,
            "name": "Kanaria",
            "type": "prometheus",
            "access": "proxy",
            "url": self.url,
            "jsonData": settings,
        }

    @property
    def secrets(self) -> Document:
        """The settings that Grafana accepts but never shows."""
        secret = {f"httpHeaderValue{number}": value for number, value in enumerate(self._sent.values(), start=1)}
        secret |= {} if self.authority is None else {"tlsCACert": self.authority}
        return {"secureJsonData": secret} if secret else {}


@dataclass(frozen=True, slots=True)
class Webhook:
    """The receiver of alerts from Grafana's own rules: the controller, at the address that Grafana uses."""

    controller: str
    token: str

    @property
    def settings(self) -> Document:
        return {
            "url": f"{self.controller}/api/alerts",
            "httpMethod": "POST",
            "authorization_scheme": "Bearer",
            "authorization_credentials": self.token,
        }
