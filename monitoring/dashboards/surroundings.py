"""What the boards need around them in a Grafana: folder, data source, contact point, as Grafana writes them. Pure.

Pushed through the API or read from provisioning files, it is the same.
"""

from dataclasses import dataclass

from monitoring.dashboards.style import DATA_SOURCE_UID

FOLDER_UID, FOLDER_TITLE = "kanaria", "Kanaria"
CONTACT_UID, CONTACT_NAME = "kanaria-controller", "Kanaria's controller"

Document = dict[str, object]


@dataclass(frozen=True, slots=True)
class DataSource:
    """The Prometheus that the boards ask, as Grafana reaches it."""

    url: str
    scrape_interval_s: float

    @property
    def document(self) -> Document:
        return {
            "uid": DATA_SOURCE_UID,
            "name": "Kanaria",
            "type": "prometheus",
            "access": "proxy",
            "url": self.url,
            "jsonData": {"httpMethod": "POST", "timeInterval": f"{self.scrape_interval_s:g}s"},
        }


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where alerts of Grafana's own rules go: the controller at `controller`, as Grafana reaches it."""

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
