"""The versions that run, and the interface to whatever runs them."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from contract.http import ANSWER_TIMEOUT_S, METRICS_PATH, PREDICT_PATH, READY_PATH, SECRET_HEADER

MOST_RESTARTS = 1  # one worker of a version may end for a reason outside it, such as the machine's memory


@dataclass(frozen=True, slots=True)
class Backend:
    """Where one process of a version listens."""

    tag: str  # `name:version`, of a Bento or listed; the key of every metric
    host: str
    port: int
    has_metrics: bool = True  # whether it has a page with counters
    secret: str = field(default="", repr=False)  # what it asks for at its port; empty: nothing
    metrics_path: str = METRICS_PATH  # of that page

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def headers(self) -> dict[str, str]:
        """What every request to it has to bring."""
        return {SECRET_HEADER: self.secret} if self.secret else {}


@dataclass(frozen=True, slots=True)
class Route:
    """Requests that a service answers in one way."""

    path: str  # as the service declares it: `{name}` stands for one part of a path, `{name:path}` for any number
    is_streamed: bool = False  # whether its answers come in parts, for as long as they like
    may_stream: bool = False  # nobody says whether they do: taken as a whole, and as long as they like


@dataclass(frozen=True, slots=True)
class Readiness:
    """How a process says that it can serve."""

    path: str = READY_PATH
    below: int = 300  # an answer with a status below this says so


@dataclass(frozen=True, slots=True)
class Service:
    """What callers may ask of a version."""

    routes: tuple[Route, ...]
    timeout_s: float  # until an answer begins
    keeps_contract: bool = False  # the model contract: predictions that may be computed twice, and labels
    readiness: Readiness = Readiness()
    metrics_path: str = METRICS_PATH  # of its page with counters, which is not for callers; empty: it has none
    has_tls: bool = False  # whether it asks for TLS at its port, which behind the gateway it does not get
    idle_s: float = 4.0  # a connection unused for so long is closed; its server must wait longer, as uvicorn's 5 s

    @property
    def kept_back(self) -> tuple[str, ...]:
        """The paths, and what is below them, that the gateway passes to nobody."""
        return tuple(dict.fromkeys((METRICS_PATH, self.metrics_path or METRICS_PATH)))

    @property
    def answers_whole(self) -> tuple[Route, ...]:
        """The routes whose answers come as a whole: their requests can be copied, and the answers' times compared."""
        return tuple(route for route in self.routes if not route.is_streamed)


CONTRACT = Service((Route(PREDICT_PATH),), ANSWER_TIMEOUT_S, keeps_contract=True)


@dataclass(frozen=True, slots=True)
class Version:
    """A version and the processes that serve it, of which each can answer every request."""

    backends: tuple[Backend, ...]  # at least one; all of one tag
    service: Service = CONTRACT

    @property
    def tag(self) -> str:
        return self.backends[0].tag

    @property
    def secret(self) -> str:
        """What its processes ask for: all that ask at all for the same."""
        return next((backend.secret for backend in self.backends if backend.secret), "")


class Health(Enum):
    """The state of one version."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"  # runs, but does not answer its readiness probe
    DEAD = "dead"  # exited since it was started


@dataclass(frozen=True, slots=True)
class VersionStatus:
    health: Health
    backends: tuple[Backend, ...] = ()  # none: it has no address
    has_crashed: bool = False  # its process ended by itself at least once since `start`
    detail: str = ""  # how its process ended, or last lines of its log, when it is not healthy or has crashed
    restarts: int = 0  # workers, and processes of several, that ended by themselves since `start` and are replaced
    preparing: str = ""  # what is done to make its environment; it begins to load after that


class Fleet(Protocol):
    """Starts and stops versions. One version is one or more addressable backends."""

    def known_tags(self) -> tuple[str, ...]:
        """Tags that could be started here."""

    def service(self, tag: str) -> Service:
        """What callers may ask of `tag`. Raises KanariaError."""

    def start(self, tag: str) -> None:
        """Ask for `tag` to run; returns at once. Idempotent. Raises KanariaError."""

    def status(self, tag: str) -> VersionStatus:
        """The present state of `tag`."""

    def stop(self, tag: str) -> None:
        """Ask `tag` to finish its requests and end; returns at once. Idempotent. Raises KanariaError."""

    def suspend(self, tag: str) -> bool:
        """Let `tag` answer nobody from now on, without ending it and without a file. `stop` can still end it.

        Returns: whether it has processes here. Idempotent.
        """

    def running(self) -> tuple[str, ...]:
        """Tags that were started and have not ended after `stop`."""
