"""The settings of a gateway.

The bootstrap, the routes and the router all read the same object, so the running Envoy and the process that controls it
cannot disagree about a port or a folder. Retries are the same for every gateway: resources.py sets them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from contract.http import ANSWER_TIMEOUT_S, OWN_CALLER

Scope = Literal["predictions", "feedback"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that opens the gateway."""

    secret: str
    name: str = OWN_CALLER  # the holder's name, valid in a header
    scopes: tuple[Scope, ...] = SCOPES
    labels: str | None = None  # the name of the key whose answers it may label; None: its own


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Settings of one Envoy gateway. Its metrics are always on loopback, and its admin is a Unix socket."""

    directory: Path  # the gateway's own folder: bootstrap, clusters, routes, failures
    port: int = 8080
    stats_port: int = 8081  # of its metrics page
    host: str = "127.0.0.1"  # the address to which clients connect
    api_keys: tuple[ApiKey, ...] = ()  # accepted in the header x-api-key; none: the gateway is open
    asks_for_keys: bool = True  # whether it knows callers by the names of their keys, even if `api_keys` is not filled
    max_requests_per_s: int | None = None  # of all clients together; None: no limit
    max_body_bytes: int = 8 * 1024 * 1024  # of a request under the model contract
    max_upload_bytes: int = 100 * 1024 * 1024  # of a request to any other service
    receive_timeout_s: float = ANSWER_TIMEOUT_S  # until the whole request has arrived
    max_header_kib: int = 16
    cors_origins: tuple[str, ...] = ()  # sites whose pages may call from a browser; `*`: all sites; empty: none
    underscore_headers: Literal["drop", "accept"] = "drop"  # some servers treat `x_id` as `x-id`
    max_connections: int = 4096  # of clients
    max_requests_per_version: int = 512  # unanswered at one time, before the circuit breaker answers 503
    request_timeout_s: float = ANSWER_TIMEOUT_S  # of one answer, including retries
    try_timeout_s: float = 5.0  # then a prediction is also sent to another process, and the first answer counts
    idle_timeout_s: float = (
        120.0  # of a client connection; longer than in usual load balancers, so that not both sides close at once
    )
    worker_threads: int = 1
    has_tls: bool = False  # with the certificate in `certificate_path`
    has_observer: bool = False  # a process beside the gateway compares answers
    has_open_admin: bool = False  # an earlier version started it: its admin has no socket and listens on `stats_port`

    @property
    def stats_address(self) -> str:
        return f"127.0.0.1:{self.stats_port}"

    @property
    def admin_url(self) -> str:
        return f"http://{self.stats_address}"

    @property
    def admin_folder(self) -> Path:
        return self.directory / "admin"

    @property
    def admin_socket(self) -> Path:
        """The admin's socket, as a path that is short enough for the operating system."""
        return self.admin_folder.resolve() / "socket"

    @property
    def observer_socket(self) -> Path:
        """Where the observer listens."""
        return self.admin_folder.resolve() / "observer"

    @property
    def feedback_socket(self) -> Path:
        """The socket at which the observer accepts labels."""
        return self.admin_folder.resolve() / "feedback"

    @property
    def answers_path(self) -> Path:
        """The file that says what the observer counts of answers."""
        return self.directory / "answers.json"

    @property
    def bootstrap_path(self) -> Path:
        return self.directory / "bootstrap.json"

    @property
    def clusters_path(self) -> Path:
        return self.directory / "clusters.json"

    @property
    def routes_path(self) -> Path:
        return self.directory / "routes.json"

    @property
    def without_version_path(self) -> Path:
        """The routes of a gateway without a version; it starts with them if the others are damaged."""
        return self.directory / "without-version.json"

    def filter_path(self, name: str) -> Path:
        """The settings of one filter that may change while the gateway runs."""
        return self.directory / f"filter-{name}.json"

    @property
    def certificate_path(self) -> Path:
        """The gateway's certificate and its key."""
        return self.directory / "certificate.json"

    @property
    def pressure_path(self) -> Path:
        """The file with the share of its connections in use."""
        return self.directory / "pressure"

    @property
    def failures_path(self) -> Path:
        """The file to which Envoy writes the users of failed requests while callers are sticky."""
        return self.directory / "failures.jsonl"

    @property
    def segments_path(self) -> Path:
        """The file to which Envoy writes new values of the header by which a plan tells segments apart."""
        return self.directory / "segments.jsonl"
