"""The other resources of Kanaria in a Grafana: folder, data source and contact point, in Grafana's own format.

They are the same whether they are pushed through the API or read from provisioning files.
"""

from dataclasses import dataclass

from monitoring.grafana.dashboards.style import DATA_SOURCE_UID

FOLDER_UID, FOLDER_TITLE = "kanaria", "Kanaria"
CONTACT_UID, CONTACT_NAME = "kanaria-controller", "Kanaria's controller"

Document = dict[str, object]


@dataclass(frozen=True, slots=True)
class DataSource:
    """The Prometheus that the boards query, at the address that Grafana uses."""

    url: str
    scrape_interval_s: float
    authorization: str | None = None  # what Grafana brings, as in the header of that name; None: nothing

    @property
    def document(self) -> Document:
        settings = {"httpMethod": "POST", "timeInterval": f"{self.scrape_interval_s:g}s"}
        if self.authorization is not None:
            settings["httpHeaderName1"] = "Authorization"
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
        """What is written with it, and Grafana never shows."""
        return {} if self.authorization is None else {"secureJsonData": {"httpHeaderValue1": self.authorization}}


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
