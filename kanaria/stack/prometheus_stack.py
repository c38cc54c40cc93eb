"""Prometheus and Alertmanager of the stack, if they are installed: their configuration and processes."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from contract.files import write_whole
from kanaria.errors import SetupError
from kanaria.settings import ALERTS_TOKEN_FILE, VERSION_SECRET_FILE, Settings
from kanaria.stack.ports import free_port
from kanaria.stack.supervision import Program
from kanaria.stack.web_config import web_config
from monitoring.addresses import RUNBOOKS, runbooks_at
from monitoring.prometheus.alertmanager import (
    NOTIFY_NOBODY,
    AlertmanagerSettings,
    Receiver,
    alertmanager_command,
    alertmanager_config,
    parse_receivers,
)
from monitoring.prometheus.configuration import (
    RULES,
    WEB_CONFIG,
    PrometheusSettings,
    prometheus_command,
    prometheus_config,
)
from monitoring.prometheus.trusted import Trusted

PROMETHEUS = "prometheus"  # the name of its program
_ALERTMANAGERS = ("prometheus-alertmanager", "alertmanager")  # the name on Debian, and elsewhere


@dataclass(frozen=True, slots=True)
class PrometheusStack:
    """The programs that were found, and their ports."""

    settings: Settings
    prometheus: str  # path of the program
    prometheus_port: int
    rules: tuple[Path, ...] | None  # None: Kanaria's own
    alertmanager: str | None
    alertmanager_port: int
    receivers: Sequence[Receiver]
    controller: Trusted | None  # its certificate; None: it speaks plain HTTP

    @classmethod
    def find(cls, settings: Settings, *, controller_host: str | None = None) -> Self | None:
        """The programs on the PATH; None if the built-in scraper is used. Raises SetupError, RulesError.

        Args:
            controller_host: a host name in the controller's certificate; None: it has none.
        """
        prometheus = None if settings.metrics == "scrape" else shutil.which("prometheus")
        if settings.metrics == "prometheus" and prometheus is None:
            raise SetupError(
                "Prometheus is not installed, and KANARIA_METRICS=prometheus requires it",
                saw="no `prometheus` on the PATH",
                do="install it (Debian: apt-get install prometheus), or set KANARIA_METRICS=scrape",
            )
        if prometheus is None:
            return None
        return cls(
            settings=settings,
            prometheus=prometheus,
            prometheus_port=settings.prometheus_port or free_port(),
            rules=_rules(settings.rules),
            alertmanager=next((path for name in _ALERTMANAGERS if (path := shutil.which(name))), None),
            alertmanager_port=free_port(),
            receivers=_receivers(settings.receivers),
            controller=Trusted(settings.controller_certificate, controller_host) if controller_host else None,
        )

    @property
    def names(self) -> str:
        return "Prometheus" + (" and Alertmanager" if self.alertmanager else "")

    def programs(self) -> Iterator[Program]:
        """Write the configuration files. Yields the programs that read them."""
        yield self._prometheus()
        if self.alertmanager is not None:
            yield self._alertmanager(self.alertmanager)

    def _prometheus(self) -> Program:
        folder = self.settings.root / "prometheus"
        self.settings.secret(VERSION_SECRET_FILE)  # makes it
        configuration = prometheus_config(
            PrometheusSettings(
                targets_dir=self.settings.targets,
                scrape_interval_s=self.settings.scrape_interval_s,
                rule_files=self.rules or self._own_rules(folder / "rules"),
                alertmanager=f"127.0.0.1:{self.alertmanager_port}" if self.alertmanager else None,
                password_file=self.settings.alertmanager_password_file,
                secret_file=self.settings.version_secret_file,
                controller=self.controller,
            )
        )
        write_whole(folder / "prometheus.yml", configuration)
        _, _, password = self.settings.prometheus_login.path.read_text().strip().partition(":")
        write_whole(folder / "web.yml", web_config(password), mode=0o600)
        write_whole(self.settings.prometheus_address, f"http://127.0.0.1:{self.prometheus_port}\n")
        command = prometheus_command(
            self.prometheus,
            config=folder / "prometheus.yml",
            data_dir=folder / "data",
            listen=f"127.0.0.1:{self.prometheus_port}",
            web_config=folder / "web.yml",
        )
        return Program(PROMETHEUS, command)

    def _own_rules(self, folder: Path) -> tuple[Path, ...]:
        """Kanaria's rules, with links to this controller's runbooks."""
        folder.mkdir(parents=True, exist_ok=True)
        runbooks = runbooks_at(self.settings.controller_url)
        for path in RULES:
            write_whole(folder / path.name, path.read_text().replace(RUNBOOKS, runbooks))
        return tuple(folder / path.name for path in RULES)

    def _alertmanager(self, path: str) -> Program:
        folder = self.settings.root / "alertmanager"
        folder.mkdir(parents=True, exist_ok=True)
        self.settings.secret(ALERTS_TOKEN_FILE)  # makes it
        configuration = alertmanager_config(
            AlertmanagerSettings(
                webhook_url=f"{self.settings.controller_url}/api/alerts",
                token_file=self.settings.alerts_token_file,
                receivers=self.receivers,
                controller=self.controller,
            )
        )
        write_whole(folder / "alertmanager.yml", configuration)
        write_whole(folder / "web.yml", web_config(self.settings.alertmanager_password), mode=0o600)
        command = alertmanager_command(
            path,
            config=folder / "alertmanager.yml",
            data_dir=folder / "data",
            listen=f"127.0.0.1:{self.alertmanager_port}",
            web_config=folder / "web.yml",
        )
        return Program("alertmanager", command)


def has_password(command: Sequence[str]) -> bool:
    """Whether a Prometheus with this command requires a password. Those of earlier Kanarias do not."""
    return any(argument.startswith(WEB_CONFIG) for argument in command)


def _rules(folder: Path | None) -> tuple[Path, ...] | None:
    if folder is None:
        return None
    if found := tuple(sorted(folder.absolute().glob("*.yaml"))):
        return found
    raise SetupError(
        "there are no alert rules",
        saw=f"no *.yaml in KANARIA_RULES={folder}",
        do=f"generate some (`kanaria rules generate --out {folder}`), or unset KANARIA_RULES",
    )


def _receivers(path: Path | None) -> Sequence[Receiver]:
    if path is None:
        return NOTIFY_NOBODY
    if path.is_file():
        return parse_receivers(path.read_text())
    raise SetupError(
        "nobody can be notified of alerts",
        saw=f"no file KANARIA_RECEIVERS={path}",
        do="correct the path, or unset KANARIA_RECEIVERS",
    )
