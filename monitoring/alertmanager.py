"""Alertmanager's configuration and command line, as pure functions.

Every alert goes to the controller, which acts on those labelled `action: rollback` and shows the others. The
composition root writes the results to files and starts the process.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True, slots=True)
class AlertmanagerSettings:
    webhook_url: str  # where the controller takes alerts
    token_file: Path | None = None  # holds the bearer token that the controller asks for
    group_wait_s: float = 1.0  # a rollback should not wait for company
    group_interval_s: float = 10.0
    repeat_interval_s: float = 3600.0


def alertmanager_config(settings: AlertmanagerSettings) -> str:
    """The text of alertmanager.yml."""
    webhook: dict[str, object] = {"url": settings.webhook_url, "send_resolved": True}
    if settings.token_file is not None:
        webhook["http_config"] = {"authorization": {"credentials_file": str(settings.token_file)}}
    config = {
        "route": {
            "receiver": "controller",
            "group_by": ["alertname", "version"],
            "group_wait": _duration(settings.group_wait_s),
            "group_interval": _duration(settings.group_interval_s),
            "repeat_interval": _duration(settings.repeat_interval_s),
        },
        "receivers": [{"name": "controller", "webhook_configs": [webhook]}],
    }
    return yaml.safe_dump(config, sort_keys=False)


def alertmanager_command(program: str, *, config: Path, data_dir: Path, listen: str) -> list[str]:
    """The command that runs Alertmanager alone, without a cluster.

    Args:
        program: path of the binary; Debian calls it `prometheus-alertmanager`, others `alertmanager`.
        config: path of alertmanager.yml.
        data_dir: where it keeps silences and what it sent.
        listen: `host:port` of its API and page.
    """
    return [
        program,
        f"--config.file={config}",
        f"--storage.path={data_dir}",
        f"--web.listen-address={listen}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
