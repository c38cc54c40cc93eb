"""What a Grafana, a Prometheus and an Alertmanager read from files, for people who start them with compose.yaml. Pure.

`kanaria dashboards generate` writes it to `generated/`; a test fails when that differs. Paths are those in the
containers; they share the network of the machine that Kanaria runs on.
"""

from pathlib import Path

import yaml

from monitoring.addresses import CONTROLLER
from monitoring.alertmanager import AlertmanagerSettings, alertmanager_config
from monitoring.dashboards import boards
from monitoring.dashboards.surroundings import (
    CONTACT_NAME,
    CONTACT_UID,
    FOLDER_TITLE,
    FOLDER_UID,
    DataSource,
    Document,
    Webhook,
)
from monitoring.prometheus import RULES, PrometheusSettings, prometheus_config

GENERATED = Path(__file__).with_name("generated")
BOARDS_IN_GRAFANA = "/var/lib/grafana/dashboards"
TOKEN_IN_CONTAINERS = Path("/run/secrets/kanaria-token")
PROMETHEUS, ALERTMANAGER = "127.0.0.1:9090", "127.0.0.1:9093"
_SCRAPE_INTERVAL_S = 5.0


def generated_files() -> dict[str, str]:
    """The text of every file, by its path in `generated/`."""
    return {
        **{f"dashboards/{board.uid}.json": board.json for board in boards()},
        "provisioning/datasources/kanaria.yaml": _yaml(_data_sources()),
        "provisioning/dashboards/kanaria.yaml": _yaml(_providers()),
        "provisioning/alerting/kanaria.yaml": _yaml(_contact_points()),
        "prometheus.yml": prometheus_config(
            PrometheusSettings(
                targets_dir=Path("/etc/prometheus/targets"),
                scrape_interval_s=_SCRAPE_INTERVAL_S,
                rule_files=tuple(Path("/etc/prometheus/rules") / path.name for path in RULES),
                alertmanager=ALERTMANAGER,
            )
        ),
        "alertmanager.yml": alertmanager_config(
            AlertmanagerSettings(webhook_url=f"{CONTROLLER}/api/alerts", token_file=TOKEN_IN_CONTAINERS)
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
    webhook = Webhook(CONTROLLER, f"$__file{{{TOKEN_IN_CONTAINERS}}}")  # Grafana puts the file's content there
    receiver = {"uid": CONTACT_UID, "type": "webhook", "settings": webhook.settings}
    return {"apiVersion": 1, "contactPoints": [{"orgId": 1, "name": CONTACT_NAME, "receivers": [receiver]}]}


def _yaml(document: Document) -> str:
    return "# Written by `kanaria dashboards generate`.\n" + yaml.safe_dump(document, sort_keys=False)
