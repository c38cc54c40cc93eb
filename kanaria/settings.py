"""Settings of the local stack: `KANARIA_*` environment variables, and where everything lies."""

import hashlib
import os
import secrets
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import (
    BaseSettings,
    JsonConfigSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from kanaria import private_files
from kanaria.errors import SetupError
from service.signatures import Policy

_LONGEST_SOCKET_PATH = 100  # the kernel's limit is 108 bytes
_LISTENING_FILE = "listening.json"


class Settings(BaseSettings):
    """What can be set; every name is an environment variable with `KANARIA_` before it."""

    model_config = SettingsConfigDict(env_prefix="KANARIA_", extra="ignore", frozen=True)

    home: Path = Field(default=Path(".kanaria"), description="folder of all state")
    host: str = Field(default="127.0.0.1", description="address that the gateway and the controller listen on")
    gateway_port: int = Field(default=8080, ge=1, le=65535, description="port of the gateway")
    controller_port: int = Field(default=8090, ge=1, le=65535, description="port of the controller")
    metrics: Literal["auto", "scrape", "prometheus"] = Field(
        default="auto", description="where counters come from; auto: Prometheus where it is on the PATH"
    )
    prometheus_port: int | None = Field(
        default=None, ge=1, le=65535, description="port of Prometheus; default: one that is free"
    )
    grafana_url: HttpUrl | None = Field(default=None, description="a Grafana that is told of every decision")
    grafana_token: SecretStr | None = Field(default=None, description="token of a service account there, role Admin")
    scrape_interval_s: float = Field(default=1.0, gt=0, le=60, description="how often Prometheus reads, seconds")
    workers: int = Field(default=1, ge=1, le=64, description="processes per version")
    rules: Path | None = Field(
        default=None, description="folder of the rule files that Prometheus reads; default: the project's"
    )
    receivers: Path | None = Field(
        default=None, description="Alertmanager receivers `page` and `ticket`, YAML; default: people are not told"
    )
    needs_api_key: bool = Field(default=True, description="the gateway asks for x-api-key")
    deadline_s: float = Field(default=9.0, gt=0, description="longest wait of a request for the model, seconds")
    prediction_log_mb: int = Field(default=512, ge=0, description="how much of the prediction log is kept; 0: none")
    public_key: Path | None = Field(
        default=None, description="key that every model must be signed with; default: what `kanaria sign` made"
    )
    signatures: Policy = Field(
        default="auto", description="auto: check models that are signed, or all where a key is set; required; off"
    )
    drift_every_s: float = Field(
        default=900.0, ge=0, description="how often traffic is compared with the model's reference, seconds; 0: never"
    )
    drift_last_s: float = Field(default=3600.0, gt=0, description="how far back such a comparison looks, seconds")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic names it; there is no such file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What the environment leaves open is as it is for the stack that is up."""
        home = {**env_settings(), **init_settings()}.get("home", cls.model_fields["home"].default)
        path = Path(home, _LISTENING_FILE)
        try:
            return init_settings, env_settings, JsonConfigSettingsSource(settings_cls, path)
        except ValueError as error:
            raise SetupError(
                "it cannot be read where the stack listens",
                saw=f"{path}: {error}",
                do="remove that file, and name ports that are not the defaults in the environment",
            ) from error

    def remember_where_it_listens(self) -> None:
        """Later commands of this state folder need not be told the ports again."""
        written = self.root / f".{_LISTENING_FILE}"
        written.write_text(self.model_dump_json(include={"host", "gateway_port", "controller_port"}))
        written.replace(self.root / _LISTENING_FILE)  # a full disk leaves the old one

    def forget_where_it_listens(self) -> None:
        """The next `up` takes the ports of its environment, or the defaults."""
        (self.root / _LISTENING_FILE).unlink(missing_ok=True)

    @cached_property
    def root(self) -> Path:
        """`home`, absolute."""
        return self.home.absolute()

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.db"

    @property
    def targets(self) -> Path:
        """The folder that tells Prometheus what to scrape."""
        return self.root / "prometheus" / "targets"

    @property
    def prometheus_address(self) -> Path:
        """The file that says at which URL the stack's Prometheus is; none without one."""
        return self.root / "prometheus" / "url"

    @property
    def grafana_secret(self) -> str | None:
        return self.grafana_token.get_secret_value() if self.grafana_token else None

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def answers(self) -> Path:
        return self.root / "answers"

    @property
    def drift(self) -> Path:
        return self.root / "drift"

    @property
    def samples(self) -> Path:
        return self.root / "samples.jsonl"

    @property
    def own_private_key(self) -> Path:
        return self.root / "signing-key.pem"

    @property
    def own_public_key(self) -> Path:
        return self.root / "signing-key.pub"

    @property
    def supervisor_socket(self) -> Path:
        """Where the process supervisor listens; in a short path, which sockets need."""
        inside = self.root / "supervisor.sock"
        if len(str(inside)) <= _LONGEST_SOCKET_PATH:
            return inside
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp"))  # noqa: S108 - the name below is unguessable per home
        return runtime / f"kanaria-{hashlib.sha256(str(self.root).encode()).hexdigest()[:16]}.sock"

    @property
    def controller_url(self) -> str:
        return f"http://{self.host}:{self.controller_port}"

    @property
    def gateway_url(self) -> str:
        return f"http://{self.host}:{self.gateway_port}"

    def secret(self, name: str) -> str:
        """The secret kept in file `name`, readable by this user only; made when there is none."""
        path = self.root / name
        if not path.exists():
            private_files.keep(path, secrets.token_urlsafe(24).encode())
        return path.read_text().strip()

    @property
    def api_key(self) -> str:
        """What clients send to the gateway as x-api-key."""
        return self.secret("api-key")

    @property
    def user_key(self) -> bytes:
        """What makes users' names unreadable in the ledger."""
        return self.secret("user-key").encode()

    @property
    def token(self) -> str:
        """What may command the controller."""
        return self.secret("token")
