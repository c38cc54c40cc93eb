"""Settings of the local stack: `KANARIA_*` environment variables, and the paths of the state folder.

pydantic-settings would need as many lines, and its import would take a fifteenth of a command's time.
"""

import json
import os
import re
import secrets
import socket
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, ValidationInfo, field_validator, model_validator

from contract.files import is_lost, write_whole
from contract.login import Login
from kanaria import private_files
from kanaria.errors import SetupError
from monitoring.prometheus.user import USER
from service.signatures import Policy

PREFIX = "KANARIA_"  # of the environment variables
_LISTENING_FILE = "listening.json"

Runtime = Literal["auto", "shared", "venv"]

TOKEN_FILE, ALERTS_TOKEN_FILE, API_KEY_FILE, USER_KEY_FILE = "token", "alerts-token", "api-key", "user-key"
ANSWERS_KEY_FILE = "answers-key"
VERSION_SECRET_FILE = "version-secret"  # noqa: S105 - its name
CALLER_KEYS_FILE = "api-keys.json"
PRIVATE_KEY_FILE, PUBLIC_KEY_FILE = "signing-key.pem", "signing-key.pub"
ALERTMANAGER_KEY_FILE = "alertmanager-password"
PROMETHEUS_LOGIN_FILE = "prometheus-login"
KEY_FILES = (
    TOKEN_FILE,
    ALERTS_TOKEN_FILE,
    ALERTMANAGER_KEY_FILE,
    PROMETHEUS_LOGIN_FILE,
    API_KEY_FILE,
    CALLER_KEYS_FILE,
    USER_KEY_FILE,
    ANSWERS_KEY_FILE,
    VERSION_SECRET_FILE,
    PRIVATE_KEY_FILE,
    PUBLIC_KEY_FILE,
)

SECRET_FOLDERS = (Path("~/.ssh"), Path("~/.gnupg"))


class Settings(BaseModel):
    """The settings. Each name is an environment variable with the prefix `KANARIA_`.

    Given values override the environment, and the environment overrides the settings of the running stack.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, validate_default=True)

    home: Path = Field(default=Path(".kanaria"), description="folder of the stack's state")
    host: str = Field(default="127.0.0.1", description="address that the gateway listens on")
    controller_host: str = Field(
        default="127.0.0.1",
        description="address that the controller listens on; everyone who reaches it can read everything",
    )
    tls_certificate: Path | None = Field(
        default=None,
        description="certificate of the gateway, PEM, followed by those of its authorities; not set: plain HTTP",
    )
    tls_key: Path | None = Field(
        default=None, description="private key of the gateway's certificate, PEM, without a password"
    )
    controller_tls_certificate: Path | None = Field(
        default=None,
        description="certificate of the controller; on another machine from which you send commands: a copy of it",
    )
    controller_tls_key: Path | None = Field(default=None, description="private key of the controller's certificate")
    gateway_port: int = Field(default=8080, ge=1, le=65535, description="port of the gateway")
    controller_port: int = Field(default=8090, ge=1, le=65535, description="port of the controller")
    metrics: Literal["auto", "scrape", "prometheus"] = Field(
        default="auto",
        description="where counters come from; `auto`: Prometheus if it is on the PATH, else `scrape`",
    )
    prometheus_port: int | None = Field(
        default=None, ge=1, le=65535, description="port of Prometheus; not set: a free port"
    )
    grafana_url: HttpUrl | None = Field(
        default=None, description="URL of a Grafana that gets an annotation for every decision"
    )
    grafana_token: SecretStr | None = Field(
        default=None, description="token of a service account in that Grafana, with the role Admin"
    )
    my_token: SecretStr | None = Field(
        default=None,
        description="token that `kanaria token add` made for you; not set: the owner's token in the state folder",
    )
    scrape_interval_s: float = Field(default=1.0, gt=0, le=60, description="how often Prometheus scrapes, seconds")
    workers: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="workers of each process of a version of the model contract; not set: 2 if four times 400 MB "
        "and the model fit into the free memory, else 1",
    )
    replicas: int = Field(
        default=1,
        ge=1,
        le=16,
        description="processes of each version, each with its workers; with 2 or more, killing one loses no request",
    )
    runtime: Runtime = Field(
        default="auto",
        description="which Python runs a version: `shared` is Kanaria's own, `venv` an environment with the packages "
        "that its Bento asks for, `auto` is `shared` if that has all these packages, else `venv`",
    )
    pass_env: tuple[str, ...] = Field(
        default=(),
        description="variables of your environment that versions get in addition to those that every program needs, "
        "such as `AWS_REGION,HF_*`; separate them with commas; `*` stands for any characters",
    )
    sandbox: Literal["auto", "off", "required"] = Field(
        default="auto",
        description="whether Bentos run in a sandbox in which they cannot see the state folder, what `KANARIA_HIDE` "
        "names, and other processes (Linux): `auto` if the machine offers that; `required`: without it they do not run",
    )
    hide: tuple[Path, ...] = Field(
        default=SECRET_FOLDERS,
        description="what else the sandbox hides from Bentos, such as `~/.ssh,~/.gnupg,~/.aws`; separate paths with "
        "commas; `none`: nothing",
    )
    versions: Path | None = Field(
        default=None, description="YAML file with versions that are not Bentos; not set: none"
    )
    rules: Path | None = Field(
        default=None, description="folder of the rule files that Prometheus reads; not set: the project's"
    )
    receivers: Path | None = Field(
        default=None,
        description="YAML file with the Alertmanager receivers `page` and `ticket`; not set: alerts notify nobody",
    )
    notify: Path | None = Field(
        default=None,
        description="file with the addresses that are notified of decisions (Slack, e-mail, webhook and others), one "
        "per line, readable only by you; not set: none",
    )
    page_url: HttpUrl | None = Field(
        default=None,
        description="URL at which people reach the controller's page, for links; not set: its address on this machine",
    )
    needs_api_key: bool = Field(default=True, description="whether the gateway asks for the header x-api-key")
    cors_origins: tuple[str, ...] = Field(
        default=(),
        description="sites whose pages may call the gateway from a browser, such as `https://shop.example`; separate "
        "them with commas; `*`: all",
    )
    underscore_headers: Literal["drop", "accept"] = Field(
        default="drop", description="what the gateway does with a request's headers that have `_` in their name"
    )
    max_body_mib: int | None = Field(
        default=None,
        ge=1,
        le=65536,
        description="largest request body that the gateway accepts, MiB; not set: 8 for models of the contract, 100 "
        "for other services",
    )
    max_requests_per_s: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="requests a second that the gateway accepts from all callers together; more are answered 429; not "
        "set: no limit",
    )
    deadline_s: float = Field(default=9.0, gt=0, description="longest time that a request waits for the model, seconds")
    try_timeout_s: float = Field(
        default=5.0,
        gt=0,
        lt=10,
        description="after how many seconds a prediction is also sent to another process, if one can answer; "
        "the first answer counts",
    )
    prediction_log_mb: int = Field(default=512, ge=0, description="how much of the prediction log is kept, MB; 0: none")
    public_key: Path | None = Field(
        default=None,
        description="public key of all signatures; not set: the one that `kanaria sign` made",
    )
    signatures: Policy = Field(
        default="auto",
        description="what is verified before it runs: `auto`: models and Bentos that are signed, and all models if a "
        "public key is set; `required`: all models and Bentos",
    )
    drift_every_s: float = Field(
        default=900.0,
        ge=0,
        description="how often the traffic is compared with the model's reference, seconds; 0: never",
    )
    drift_last_s: float = Field(default=3600.0, gt=0, description="how far back that comparison looks, seconds")
    ledger_backup_every_s: float = Field(
        default=3600.0, ge=0, description="how often the controller makes a copy of the ledger, seconds; 0: never"
    )
    ledger_backups: int = Field(default=24, ge=1, description="how many copies of the ledger are kept")

    @model_validator(mode="before")
    @classmethod
    def _with_what_is_set(cls, given: dict[str, Any]) -> dict[str, Any]:
        said = _of_environment(cls.model_fields) | given
        return _of_running_stack(Path(said.get("home", cls.model_fields["home"].default))) | said

    @field_validator("host", "controller_host")
    @classmethod
    def _host_is_an_address(cls, host: str, info: ValidationInfo) -> str:
        """Resolve a host name once, so that all parts use the same address."""
        name = host.removeprefix("[").removesuffix("]")
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise SetupError(
                "this is not an address to listen on",
                saw=f"KANARIA_{(info.field_name or '').upper()}={host}: {error}",
                do="name an address of this machine, such as 127.0.0.1, ::1, or 0.0.0.0 for all of them",
            ) from error
        addresses = [str(address[0]) for *_, address in found]
        return next((address for address in addresses if ":" not in address), addresses[0])

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _origins_are_sites(cls, origins: object) -> object:
        """Accept only the form that browsers send in the header `origin`: another form would never match."""
        if not isinstance(origins, str):
            return origins
        named = tuple(origin.strip().lower() for origin in origins.split(",") if origin.strip())
        wrong = [origin for origin in named if origin != "*" and not _is_origin(origin)]
        if wrong:
            raise SetupError(
                "this is not an origin as browsers send it",
                saw=f"KANARIA_CORS_ORIGINS has {', '.join(wrong)}",
                do="write scheme, host and, unless it is the default one, port: https://shop.example, "
                "http://localhost:3000; or `*` for every site",
            )
        return named

    @field_validator("pass_env", mode="before")
    @classmethod
    def _names_can_be_variables(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        names = tuple(name.strip() for name in given.split(",") if name.strip())
        wrong = [name for name in names if not re.fullmatch(r"[A-Za-z_*][A-Za-z0-9_*]*", name)]
        if wrong or any(name.startswith(("KANARIA_", "KANARIA*")) for name in names):
            raise SetupError(
                "these are not names of variables" if wrong else "Kanaria's own variables are not passed on",
                saw=f"KANARIA_PASS_ENV={given}",
                do="write names separated by commas, such as AWS_REGION,HF_*",
            )
        return names

    @field_validator("hide", mode="before")
    @classmethod
    def _hidden_lie_somewhere(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        named = tuple(name.strip() for name in given.split(",") if name.strip() and name.strip() != "none")
        if wrong := [name for name in named if not name.startswith(("/", "~/"))]:
            raise SetupError(
                "paths to hide must be absolute",
                saw=f"KANARIA_HIDE has {', '.join(wrong)}",
                do="write paths that begin with / or ~/, separated by commas, such as ~/.aws,/srv/secrets",
            )
        return named

    @field_validator("home")
    @classmethod
    def _home_is_a_folder(cls, home: Path) -> Path:
        if home.exists() and not home.is_dir():
            raise SetupError(
                "the state folder cannot be used",
                saw=f"{home} is not a folder",
                do="name another one with --home or KANARIA_HOME",
            )
        return home

    def remember_where_it_listens(self) -> None:
        """Store the ports and the list of versions for later commands in this state folder."""
        paths = ("versions", "tls_certificate", "tls_key", "controller_tls_certificate", "controller_tls_key")
        known = self.model_copy(
            update={name: path and path.absolute() for name in paths if (path := getattr(self, name))}
        )
        include = {"host", "gateway_port", "controller_host", "controller_port", *paths}
        write_whole(self.root / _LISTENING_FILE, known.model_dump_json(include=include, exclude_none=True))

    def forget_where_it_listens(self) -> None:
        """Remove the stored ports: the next `up` uses those of its environment, or the defaults."""
        (self.root / _LISTENING_FILE).unlink(missing_ok=True)

    @property
    def is_up(self) -> bool:
        """Whether a stack was started for this state folder and not taken down."""
        return (self.root / _LISTENING_FILE).exists()

    @cached_property
    def root(self) -> Path:
        """`home` as an absolute path."""
        return self.home.absolute()

    @property
    def max_body_bytes(self) -> int | None:
        return self.max_body_mib * 2**20 if self.max_body_mib else None

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.db"

    @property
    def targets(self) -> Path:
        """The folder of Prometheus's scrape targets."""
        return self.root / "prometheus" / "targets"

    @property
    def prometheus_address(self) -> Path:
        """The file with the URL of the stack's Prometheus. It exists only with a Prometheus."""
        return self.root / "prometheus" / "url"

    @property
    def grafana_secret(self) -> str | None:
        return self.grafana_token.get_secret_value() if self.grafana_token else None

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def temporary(self) -> Path:
        """The folder for temporary files of commands. Versions cannot see it."""
        private_files.close_folder(path := self.root / "temporary")
        return path

    @property
    def environments(self) -> Path:
        """The folder of the Python environments of versions."""
        return self.root / "environments"

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
    def recorded(self) -> Path:
        """The folder of recorded requests."""
        return self.root / "recorded"

    @property
    def drift(self) -> Path:
        return self.root / "drift"

    @property
    def samples(self) -> Path:
        from contract.model_files import SAMPLES_FILE  # noqa: PLC0415 - slow, and few commands need it

        return self.root / SAMPLES_FILE

    @property
    def signed_models(self) -> Path:
        """The file with the tags of models that were signed, or served with a signature."""
        return self.root / "signed-models.json"

    @property
    def signed_bentos(self) -> Path:
        """The file with the tags of Bentos that were signed, or served with a signature."""
        return self.root / "signed-bentos.json"

    @property
    def own_private_key(self) -> Path:
        return self.root / PRIVATE_KEY_FILE

    @property
    def own_public_key(self) -> Path:
        return self.root / PUBLIC_KEY_FILE

    @property
    def controller_address(self) -> str:
        """`host:port` at which this machine reaches the controller."""
        return f"{_reached_at(self.controller_host)}:{self.controller_port}"

    @property
    def controller_url(self) -> str:
        return f"{'https' if self.controller_tls_certificate else 'http'}://{self.controller_address}"

    @property
    def controller_certificate(self) -> Path:
        """The certificate that the running controller uses."""
        return self.root / "tls" / "controller.pem"

    @property
    def controller_key(self) -> Path:
        return self.root / "tls" / "controller.key"

    @property
    def deployment(self) -> str:
        """The deployment's name for people: the name of the folder that contains the state folder."""
        return self.root.parent.name

    @property
    def notified(self) -> Path:
        """The file with the last delivered notification of each address."""
        return self.root / "notified.json"

    @property
    def people_url(self) -> str:
        """The URL of the controller's page in links for people, without a slash at the end."""
        return str(self.page_url).rstrip("/") if self.page_url else self.controller_url

    @property
    def gateway_url(self) -> str:
        return f"{'https' if self.tls_certificate else 'http'}://{_reached_at(self.host)}:{self.gateway_port}"

    def secret(self, name: str, *, user: str = "") -> str:
        """The secret in the file `name`, created if it is missing. Only this user can read the file.

        Args:
            user: a new secret is written as `user:secret`; empty: without it.

        Raises: SetupError if the file does not contain a secret.
        """
        path, kept = self.root / name, b""
        with suppress(FileNotFoundError):
            kept = path.read_bytes()
        if is_lost(kept):
            made = secrets.token_urlsafe(24)
            private_files.keep(path, (f"{user}:{made}" if user else made).encode())
            kept = path.read_bytes()
        text = kept.decode(errors="surrogateescape").strip()
        if text and text.isprintable():
            return text
        raise SetupError(
            f"{path} does not contain a secret",
            saw="characters that cannot be printed" if text else "an empty file",
            do="write one into it, or remove it: the next command creates one",
        )

    @property
    def api_key(self) -> str:
        """The key that clients send to the gateway as x-api-key."""
        return self.secret(API_KEY_FILE)

    @property
    def version_secret(self) -> str:
        """The secret that versions check at their ports."""
        return self.secret(VERSION_SECRET_FILE)

    @property
    def version_secret_file(self) -> Path:
        return self.root / VERSION_SECRET_FILE

    @property
    def user_key(self) -> bytes:
        """The key with which users' names are hashed in the ledger."""
        return self.secret(USER_KEY_FILE).encode()

    @property
    def answers_key(self) -> str:
        """The key of the checksums of requests in the table of answers."""
        return self.secret(ANSWERS_KEY_FILE)

    @property
    def token(self) -> str:
        """The owner's token for commands to the controller."""
        return self.secret(TOKEN_FILE)

    @property
    def token_file(self) -> Path:
        return self.root / TOKEN_FILE

    @property
    def alerts_token(self) -> str:
        """The token that the stack's own Alertmanager sends to the controller."""
        return self.secret(ALERTS_TOKEN_FILE)

    @property
    def alerts_token_file(self) -> Path:
        return self.root / ALERTS_TOKEN_FILE

    @property
    def alertmanager_password(self) -> str:
        """The password of the stack's Alertmanager."""
        return self.secret(ALERTMANAGER_KEY_FILE)

    @property
    def alertmanager_password_file(self) -> Path:
        return self.root / ALERTMANAGER_KEY_FILE

    @property
    def prometheus_login(self) -> Login:
        """The login of the stack's Prometheus."""
        self.secret(PROMETHEUS_LOGIN_FILE, user=USER)  # creates the file
        return Login(self.root / PROMETHEUS_LOGIN_FILE)

    @property
    def caller_keys(self) -> Path:
        """The file of the gateway's named keys."""
        return self.root / CALLER_KEYS_FILE

    @property
    def named_tokens(self) -> Path:
        """The file of personal tokens, as hashes."""
        return self.root / "tokens.json"

    @property
    def known_token(self) -> str:
        """The token of commands: a personal one, or the owner's. Does not create the owner's: reading needs none."""
        if self.my_token:
            return self.my_token.get_secret_value()
        return self.token if self.token_file.exists() else ""


def _of_environment(names: Iterable[str]) -> dict[str, Any]:
    """The values of these settings in the environment. Empty variables do not count, and case does not matter."""
    said = {name.lower(): value for name, value in os.environ.items() if value}
    return {name: said[variable] for name in names if (variable := f"{PREFIX}{name}".lower()) in said}


def _of_running_stack(home: Path) -> dict[str, Any]:
    """The stored settings of the running stack of a state folder. Raises SetupError."""
    path = home / _LISTENING_FILE
    try:
        return {**json.loads(path.read_text("utf-8").strip() or "{}")} if path.is_file() else {}
    except (ValueError, TypeError) as error:  # not JSON, or a list
        raise SetupError(
            "the ports of the running stack cannot be read",
            saw=f"{path}: {error}",
            do="remove that file, and set ports other than the defaults in the environment",
        ) from error


def _reached_at(host: str) -> str:
    """The address at which this machine reaches a server that listens on `host`, as in a URL."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing listens here
    return f"[{address}]" if ":" in address else address


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        usual = {"http": 80, "https": 443}.get(parts.scheme)
        own = f":{parts.port}" if parts.port not in (None, usual) else ""
    except ValueError:  # an invalid port
        return False
    host = parts.hostname or ""
    has_host = bool(usual and host) and "*" not in host
    return has_host and text.isascii() and text == f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{own}"
