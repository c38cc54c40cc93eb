"""The versions that run, and the interface to whatever runs them."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Backend:
    """Where one process of a version listens."""

    tag: str  # Bento tag, `name:version`; the key of every metric
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Version:
    """A version and the processes that serve it, of which each can answer every request."""

    backends: tuple[Backend, ...]  # at least one; all of one tag

    @property
    def tag(self) -> str:
        return self.backends[0].tag


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
    detail: str = ""  # last lines of its log, when it is not healthy
    restarts: int = 0  # workers, and processes of several, that ended by themselves since `start` and are replaced


class Fleet(Protocol):
    """Starts and stops versions. One version is one or more addressable backends."""

    def known_tags(self) -> tuple[str, ...]:
        """Tags that could be started here."""

    def start(self, tag: str) -> None:
        """Ask for `tag` to run; returns at once. Idempotent. Raises KanariaError."""

    def status(self, tag: str) -> VersionStatus:
        """The present state of `tag`."""

    def stop(self, tag: str) -> None:
        """Ask `tag` to finish its requests and end; returns at once. Idempotent. Raises KanariaError."""

    def running(self) -> tuple[str, ...]:
        """Tags that were started and have not ended after `stop`."""
