"""Settings of the local stack: `KANARIA_*` environment variables, and where everything lies.

pydantic-settings would read them in as many lines, and takes a fifteenth of a command to import.
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

PREFIX = "KANARIA_"  # of a variable
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
    """What can be set; every name is an environment variable with `KANARIA_` before it.

    What is given counts more than the environment, and that more than what the running stack was given.
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
        "such as `AWS_REGION,HF_*`; separate them with commas; `*` stands for any letters",
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
        """A name is looked up here, once, so that all parts mean the same address by it."""
        name = host.removeprefix("[").removesuffix("]")
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise SetupError(
                "nothing can listen on that address",
                saw=f"KANARIA_{(info.field_name or '').upper()}={host}: {error}",
                do="name an address of this machine, such as 127.0.0.1, ::1, or 0.0.0.0 for all of them",
            ) from error
        addresses = [str(address[0]) for *_, address in found]
        return next((address for address in addresses if ":" not in address), addresses[0])

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _origins_are_sites(cls, origins: object) -> object:
        """As a browser writes them in the header `origin`: any other form would never match."""
        if not isinstance(origins, str):
            return origins
        named = tuple(origin.strip().lower() for origin in origins.split(",") if origin.strip())
        wrong = [origin for origin in named if origin != "*" and not _is_origin(origin)]
        if wrong:
            raise SetupError(
                "no browser sends that as its origin",
                saw=f"KANARIA_CORS_ORIGINS has {', '.join(wrong)}",
                do="write scheme, host and, unless it is the usual one, port: https://shop.example, "
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
                "no variables have such names" if wrong else "variables of Kanaria's are not passed on",
                saw=f"KANARIA_PASS_ENV={given}",
                do="write names with a comma between them, such as AWS_REGION,HF_*",
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
                "what is to be hidden must be named by its whole path",
                saw=f"KANARIA_HIDE has {', '.join(wrong)}",
                do="write paths that begin with / or ~/, such as ~/.aws,/srv/secrets",
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
        """Remember the ports, and the list of versions, for later commands in this state folder."""
        paths = ("versions", "tls_certificate", "tls_key", "controller_tls_certificate", "controller_tls_key")
        known = self.model_copy(
            update={name: path and path.absolute() for name in paths if (path := getattr(self, name))}
        )
        include = {"host", "gateway_port", "controller_host", "controller_port", *paths}
        write_whole(self.root / _LISTENING_FILE, known.model_dump_json(include=include, exclude_none=True))

    def forget_where_it_listens(self) -> None:
        """The next `up` takes the ports of its environment, or the defaults."""
        (self.root / _LISTENING_FILE).unlink(missing_ok=True)

    @property
    def is_up(self) -> bool:
        """Whether a stack was started for this state folder, and not taken down."""
        return (self.root / _LISTENING_FILE).exists()

    @cached_property
    def root(self) -> Path:
        """`home`, absolute."""
        return self.home.absolute()

    @property
    def max_body_bytes(self) -> int | None:
        return self.max_body_mib * 2**20 if self.max_body_mib else None

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
    def temporary(self) -> Path:
        """Where commands keep what they need for a moment; no other version sees it."""
        private_files.close_folder(path := self.root / "temporary")
        return path

    @property
    def environments(self) -> Path:
        """Where versions have their own packages."""
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
        """Requests that `kanaria record` kept."""
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
        """Tags of the models that were signed, or served with a signature."""
        return self.root / "signed-models.json"

    @property
    def signed_bentos(self) -> Path:
        """The same of Bentos."""
        return self.root / "signed-bentos.json"

    @property
    def own_private_key(self) -> Path:
        return self.root / PRIVATE_KEY_FILE

    @property
    def own_public_key(self) -> Path:
        return self.root / PUBLIC_KEY_FILE

    @property
    def controller_address(self) -> str:
        """Host and port at which this machine reaches the controller."""
        return f"{_reached_at(self.controller_host)}:{self.controller_port}"

    @property
    def controller_url(self) -> str:
        return f"{'https' if self.controller_tls_certificate else 'http'}://{self.controller_address}"

    @property
    def controller_certificate(self) -> Path:
        """The certificate that the running controller has in force."""
        return self.root / "tls" / "controller.pem"

    @property
    def controller_key(self) -> Path:
        return self.root / "tls" / "controller.key"

    @property
    def deployment(self) -> str:
        """The deployment's name for people: that of the folder in which the state folder lies."""
        return self.root.parent.name

    @property
    def notified(self) -> Path:
        """The file that says how far each address was told."""
        return self.root / "notified.json"

    @property
    def people_url(self) -> str:
        """The controller's page in links for people, without a slash at its end."""
        return str(self.page_url).rstrip("/") if self.page_url else self.controller_url

    @property
    def gateway_url(self) -> str:
        return f"{'https' if self.tls_certificate else 'http'}://{_reached_at(self.host)}:{self.gateway_port}"

    def secret(self, name: str, *, user: str = "") -> str:
        """The secret kept in file `name`, readable by this user only; made when there is none, for `user:` if given.

        Raises SetupError when there is something else.
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
            f"{path} holds no secret",
            saw="characters that cannot be printed" if text else "an empty file",
            do="write one into it, or remove it: the next command makes one",
        )

    @property
    def api_key(self) -> str:
        """What clients send to the gateway as x-api-key."""
        return self.secret(API_KEY_FILE)

    @property
    def version_secret(self) -> str:
        """What versions ask for at their ports."""
        return self.secret(VERSION_SECRET_FILE)

    @property
    def version_secret_file(self) -> Path:
        return self.root / VERSION_SECRET_FILE

    @property
    def user_key(self) -> bytes:
        """What makes users' names unreadable in the ledger."""
        return self.secret(USER_KEY_FILE).encode()

    @property
    def answers_key(self) -> str:
        """What the checksums of requests beside their answers are keyed with."""
        return self.secret(ANSWERS_KEY_FILE)

    @property
    def token(self) -> str:
        """What may command the controller."""
        return self.secret(TOKEN_FILE)

    @property
    def token_file(self) -> Path:
        return self.root / TOKEN_FILE

    @property
    def alerts_token(self) -> str:
        """What the stack's own Alertmanager brings to the controller."""
        return self.secret(ALERTS_TOKEN_FILE)

    @property
    def alerts_token_file(self) -> Path:
        return self.root / ALERTS_TOKEN_FILE

    @property
    def alertmanager_password(self) -> str:
        """What opens the stack's Alertmanager."""
        return self.secret(ALERTMANAGER_KEY_FILE)

    @property
    def alertmanager_password_file(self) -> Path:
        return self.root / ALERTMANAGER_KEY_FILE

    @property
    def prometheus_login(self) -> Login:
        """What the stack's Prometheus asks for."""
        self.secret(PROMETHEUS_LOGIN_FILE, user=USER)  # makes it
        return Login(self.root / PROMETHEUS_LOGIN_FILE)

    @property
    def caller_keys(self) -> Path:
        """Keys of the gateway that have a name."""
        return self.root / CALLER_KEYS_FILE

    @property
    def named_tokens(self) -> Path:
        """The tokens of people, as hashes."""
        return self.root / "tokens.json"

    @property
    def known_token(self) -> str:
        """What commands bring: a person's own token, or the owner's where there is one. What only reads makes none."""
        if self.my_token:
            return self.my_token.get_secret_value()
        return self.token if self.token_file.exists() else ""


def _of_environment(names: Iterable[str]) -> dict[str, Any]:
    """What the variables of these settings say; an empty one says nothing. Small letters do as well."""
    said = {name.lower(): value for name, value in os.environ.items() if value}
    return {name: said[variable] for name in names if (variable := f"{PREFIX}{name}".lower()) in said}


def _of_running_stack(home: Path) -> dict[str, Any]:
    """What the stack of a state folder remembers. Raises SetupError."""
    path = home / _LISTENING_FILE
    try:
        return {**json.loads(path.read_text("utf-8").strip() or "{}")} if path.is_file() else {}
    except (ValueError, TypeError) as error:  # it is no JSON; it is a list
        raise SetupError(
            "the ports of the running stack cannot be read",
            saw=f"{path}: {error}",
            do="remove that file, and name ports that are not the defaults in the environment",
        ) from error


def _reached_at(host: str) -> str:
    """Where this machine reaches what listens on `host`, as in a URL."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing listens here
    return f"[{address}]" if ":" in address else address


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        usual = {"http": 80, "https": 443}.get(parts.scheme)
        own = f":{parts.port}" if parts.port not in (None, usual) else ""
    except ValueError:  # no port
        return False
    host = parts.hostname or ""
    has_host = bool(usual and host) and "*" not in host
    return has_host and text.isascii() and text == f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{own}"
