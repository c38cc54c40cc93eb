"""The files that Grafana, Prometheus and Alertmanager read when compose.yaml starts them.

`kanaria dashboards generate` writes them to `generated/`; a test fails if they differ. Paths are those inside the
containers, which share the network of the machine on which Kanaria runs.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml

from monitoring.addresses import CONTROLLER
from monitoring.grafana.dashboards import SignalGraph, boards
from monitoring.grafana.dashboards.resources import (
    CONTACT_NAME,
    CONTACT_UID,
    FOLDER_TITLE,
    FOLDER_UID,
    DataSource,
    Document,
    Webhook,
)
from monitoring.prometheus.alertmanager import AlertmanagerSettings, alertmanager_config
from monitoring.prometheus.configuration import RULES, PrometheusSettings, prometheus_config

GENERATED = Path(__file__).parents[1] / "generated"
BOARDS_IN_GRAFANA = "/var/lib/grafana/dashboards"
TOKEN_IN_CONTAINERS = Path("/run/secrets/kanaria-token")
_SECRET_IN_CONTAINERS = Path("/run/secrets/kanaria-version-secret")
ALERTS_TOKEN_IN_CONTAINERS = Path("/run/secrets/kanaria-alerts-token")
PROMETHEUS, ALERTMANAGER = "127.0.0.1:9090", "127.0.0.1:9093"
_SCRAPE_INTERVAL_S = 5.0


def generated_files(signals: Sequence[SignalGraph]) -> dict[str, str]:
    """The text of every file, by its path in `generated/`; `signals` are those that the boards show."""
    return {
        **{f"dashboards/{board.uid}.json": board.json for board in boards(signals)},
        "provisioning/datasources/kanaria.yaml": _yaml(_data_sources()),
        "provisioning/dashboards/kanaria.yaml": _yaml(_providers()),
        "provisioning/alerting/kanaria.yaml": _yaml(_contact_points()),
        "prometheus.yml": prometheus_config(
            PrometheusSettings(
                targets_dir=Path("/etc/prometheus/targets"),
                scrape_interval_s=_SCRAPE_INTERVAL_S,
                rule_files=tuple(Path("/etc/prometheus/rules") / path.name for path in RULES),
                alertmanager=ALERTMANAGER,
                secret_file=_SECRET_IN_CONTAINERS,
            )
        ),
        "alertmanager.yml": alertmanager_config(
            AlertmanagerSettings(webhook_url=f"{CONTROLLER}/api/alerts", token_file=ALERTS_TOKEN_IN_CONTAINERS)
        ),
    }


def _data_sources() -> Document:
    source = DataSource(f"http://{PROMETHEUS}", _SCRAPE_INTERVAL_S)
    return {"apiVersion": 1, "datasources": [source.document]}


def _providers() -> Document:
    provider = {
        "name": "kanaria",
        "folder": FOLDER_TITLE,
        "folderUid": FOLDER_UID,
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": BOARDS_IN_GRAFANA},
    }
    return {"apiVersion": 1, "providers": [provider]}


def _contact_points() -> Document:
    webhook = Webhook(CONTROLLER, f"$__file{{{TOKEN_IN_CONTAINERS}}}")  # Grafana replaces it with the file's content
    receiver = {"uid": CONTACT_UID, "type": "webhook", "settings": webhook.settings}
    return {"apiVersion": 1, "contactPoints": [{"orgId": 1, "name": CONTACT_NAME, "receivers": [receiver]}]}


def _yaml(document: Document) -> str:
    return "# Written by `kanaria dashboards generate`.\n" + yaml.safe_dump(document, sort_keys=False)
