"""What the controller may ask of the outside world: traffic, numbers, processes.

Every data plane, metric store and process host implements one of these Protocols; one contract
test per Protocol runs against every implementation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from rollout.judge.types import Pair


@dataclass(frozen=True, slots=True)
class Backend:
    """Where one version listens."""

    tag: str  # Bento tag, `name:version`; the key of every metric
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Split:
    """How traffic is shared. The whole wish, not a change: applying it twice is harmless."""

    stable: Backend
    canary: Backend | None = None
    canary_percent: int = 0  # weight, 0-100
    mirror: bool = False  # send the canary a copy of every request and throw its answers away
    sticky: str | None = None  # header whose value keeps a caller on one side; None: random per request


@dataclass(frozen=True, slots=True)
class ObservedSplit:
    """The split now in force, read back from the data plane."""

    stable: str
    canary: str | None
    canary_percent: int
    mirror: bool


class TrafficRouter(Protocol):
    """What the controller may ask of a data plane."""

    def apply(self, split: Split) -> None:
        """Ask for `split`. Idempotent; keeps serving through the change. Raises RouterRefused."""

    def observed(self) -> ObservedSplit | None:
        """The split in force; None while it converges or cannot be read."""

    def requests_in_flight(self, tag: str) -> int | None:
        """Requests that `tag` has not answered yet, for draining; None when unknown."""


SeriesKey = tuple[str, str, str]  # (instance, version tag, signal)


@dataclass(frozen=True, slots=True)
class Reading:
    """Raw cumulative counters at one instant, as (bad, total) per instance, version and signal."""

    at_s: float  # Unix seconds
    counters: Mapping[SeriesKey, Pair]


class MetricSource(Protocol):
    """Where raw counters come from. Never rates, never averages."""

    def read(self, backends: tuple[Backend, ...], *, mirrored: str | None = None) -> Reading:
        """Read every counter of `backends`.

        Args:
            backends: the versions to read.
            mirrored: the tag whose errors and latency are those of mirrored requests.

        Raises: SourceUnreachable when no trustworthy reading can be had.
        """


class Health(Enum):
    """What a process host knows of one version."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"  # runs, but does not answer its readiness probe
    DEAD = "dead"  # exited since it was started


@dataclass(frozen=True, slots=True)
class VersionStatus:
    health: Health
    backend: Backend | None = None
    has_crashed: bool = False  # its process ended by itself at least once since `start`
    detail: str = ""  # last lines of its log, when it is not well


class Fleet(Protocol):
    """Starts and stops versions. One version is one addressable backend."""

    def known_tags(self) -> tuple[str, ...]:
        """Tags that could be started here."""

    def start(self, tag: str) -> None:
        """Ask for `tag` to run; returns at once. Idempotent. Raises FleetError."""

    def status(self, tag: str) -> VersionStatus:
        """What is known of `tag` now."""

    def stop(self, tag: str) -> None:
        """Ask `tag` to finish its requests and end; returns at once. Idempotent. Raises FleetError."""

    def running(self) -> tuple[str, ...]:
        """Tags that were started and have not ended after `stop`."""
