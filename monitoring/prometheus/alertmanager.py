"""Alertmanager's configuration and command line.

Alerts labelled `action: rollback` go to the controller at once, and to people like all other alerts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from monitoring.errors import RulesError
from monitoring.prometheus.trusted import Trusted

Receiver = Mapping[str, object]
PEOPLE = ("page", "ticket")  # the receivers for people, named like the severities
NOTIFY_NOBODY: Sequence[Receiver] = tuple({"name": name} for name in PEOPLE)
EXAMPLE_RECEIVERS = Path(__file__).parents[1] / "receivers.example.yaml"
# While an alert about a cause fires, alerts about its effects are not sent.
_INHIBITED_BY = {
    "KanariaGatewayNotScraped": (
        "KanariaNoTraffic|KanariaMetricsMissing|KanariaSourceUnreachable|KanariaReleaseUnjudged"
    ),
    "KanariaGatewaySilent": (
        "KanariaGatewayNotScraped|KanariaNoTraffic|KanariaSourceUnreachable|KanariaControllerCannotWork"
    ),
    "KanariaControllerDown": "KanariaControllerStuck|KanariaReleaseStuck|KanariaRollbackFailed",
}


@dataclass(frozen=True, slots=True)
class AlertmanagerSettings:
    webhook_url: str  # where the controller accepts alerts
    token_file: Path | None = None  # holds the bearer token that the controller requires
    receivers: Sequence[Receiver] = NOTIFY_NOBODY
    controller: Trusted | None = None  # set if the controller speaks TLS


def alertmanager_config(settings: AlertmanagerSettings) -> str:
    """The text of alertmanager.yml."""
    webhook: dict[str, object] = {"url": settings.webhook_url, "send_resolved": True}
    http: dict[str, object] = {}
    if settings.token_file is not None:
        http["authorization"] = {"credentials_file": str(settings.token_file)}
    if settings.controller is not None:
        http["tls_config"] = settings.controller.tls_config
    if http:
        webhook["http_config"] = http
    config = {
        "route": {
            "receiver": "ticket",
            "group_by": ["alertname", "slo", "version"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "12h",
            "routes": [
                {  # a rollback is sent at once, ungrouped, and repeated while the alert fires: twice is harmless
                    "receiver": "controller",
                    "matchers": ['action="rollback"'],
                    "group_wait": "1s",
                    "group_interval": "10s",
                    "repeat_interval": "30s",
                    "continue": True,
                },
                {"receiver": "page", "matchers": ['severity="page"'], "group_wait": "10s", "repeat_interval": "4h"},
                {"receiver": "ticket"},
            ],
        },
        # Never inhibit an alert that triggers a rollback: it may be the only way back.
        "inhibit_rules": [
            {
                "source_matchers": ['severity="page"', 'slo=~".+"'],
                "target_matchers": ['severity="ticket"', 'action!="rollback"'],
                "equal": ["slo"],
            },
            *(
                {
                    "source_matchers": [f'alertname="{cause}"'],
                    "target_matchers": [f'alertname=~"{effects}"', 'action!="rollback"'],
                }
                for cause, effects in _INHIBITED_BY.items()
            ),
        ],
        "receivers": [{"name": "controller", "webhook_configs": [webhook]}, *settings.receivers],
    }
    return yaml.safe_dump(config, sort_keys=False)


def example_config() -> str:
    """A starting point for an Alertmanager on another machine; its addresses and files are examples."""
    settings = AlertmanagerSettings(
        webhook_url="http://controller.example.com:8090/api/alerts",
        token_file=Path("/etc/kanaria/token"),  # a copy of the file `token` in the controller's state folder
        receivers=parse_receivers(EXAMPLE_RECEIVERS.read_text()),
    )
    written_by = "# Written by `kanaria rules generate`; the receivers are ../receivers.example.yaml."
    return f"{written_by}\n{alertmanager_config(settings)}"


def parse_receivers(text: str) -> list[Receiver]:
    """Read the receivers `page` and `ticket`. Only Alertmanager checks their content. Raises RulesError."""
    try:
        receivers: list[Receiver] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RulesError("the file of receivers is not YAML", saw=str(error), do="correct that line") from error
    names = [one.get("name") for one in receivers if isinstance(one, dict)] if isinstance(receivers, list) else []
    if sorted(map(str, names)) != sorted(PEOPLE):
        raise RulesError(
            "alerts for people need two receivers, `page` and `ticket`",
            saw=f"receivers named {names}",
            do=f"write a list as in {EXAMPLE_RECEIVERS}",
        )
    return receivers


def alertmanager_command(
    program: str, *, config: Path, data_dir: Path, listen: str, web_config: Path | None = None
) -> list[str]:
    """The command that runs Alertmanager alone, without a cluster.

    Args:
        program: path of the binary; Debian calls it `prometheus-alertmanager`, others `alertmanager`.
        config: path of alertmanager.yml.
        data_dir: where it keeps silences and sent notifications.
        listen: `host:port` of its API and page.
        web_config: the file of `--web.config.file`, which says who may use them; None: everyone.
    """
    return [
        program,
        f"--config.file={config}",
        *([f"--web.config.file={web_config}"] if web_config else []),
        f"--storage.path={data_dir}",
        f"--web.listen-address={listen}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
