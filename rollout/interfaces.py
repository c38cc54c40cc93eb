"""What the controller may ask of the outside world: traffic, numbers, processes.

Every data plane, metric store and process host implements one of these Protocols; one contract
test per Protocol runs against every implementation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

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
    canary_percent: float = 0  # weight, 0-100, of at most two decimals
    mirror: bool = False  # send the canary a copy of every request and throw its answers away
    sticky: str | None = None  # header whose value keeps a caller on one side; None: random per request


@dataclass(frozen=True, slots=True)
class ObservedSplit:
    """The split now in force, read back from the data plane."""

    stable: str
    canary: str | None
    canary_percent: float
    mirror: bool

    @property
    def stable_percent(self) -> float:
        """What the canary leaves."""
        return round(100 - self.canary_percent, 2)


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


@dataclass(frozen=True, slots=True)
class UserFailure:
    """One failed request of a sticky release."""

    at_s: float  # when it was answered, Unix seconds
    version: str  # tag of the version that failed
    user: bytes | None  # a key of who sent it, never the name; None: the request named nobody


class FailureLog(Protocol):
    """Where a data plane writes whose requests failed, while it keeps callers on one side."""

    def read(self, offset: int) -> tuple[Sequence[UserFailure], int]:
        """What was written since `offset`, and the offset to read on from. Raises SourceUnreachable."""

    def trim(self, offset: int) -> int:
        """Drop what lies before `offset`, which the ledger knows by now; gives the offset to read on from."""

    def clear(self) -> None:
        """Drop everything: nobody is counted now. Raises SourceUnreachable."""


@dataclass(frozen=True, slots=True)
class PreflightResult:
    """What was found out about a canary before any user's request reached it."""

    differences: tuple[str, ...]  # why it must not get any; empty: nothing speaks against it
    remarks: tuple[str, ...] = ()  # worth knowing, no reason to refuse
    golden_requests: int = 0  # how many were replayed
    p50_ms: float | None = None  # of their answers; None: there was none
    slowest_ms: float | None = None
    memory_mb: float | None = None  # of all its processes; None: it cannot be read
    stable_memory_mb: float | None = None


class Preflight(Protocol):
    """Tries a canary out with requests of its own."""

    def check(self, canary: Backend, stable: str) -> PreflightResult:
        """Compare what `canary`, which is ready, answers with what it should, and what it accepts with `stable`'s.

        May take seconds. Whatever goes wrong on the way is a difference, not an error.
        """


@dataclass(frozen=True, slots=True)
class DriftedColumn:
    """One column in which a canary differs from stable."""

    column: str  # a feature, or `label`, `confidence`, `error` of the answers
    score: float  # 0-1, higher is worse
    threshold: float
    p_value: float  # corrected for the number of columns
    says: str  # what changed, in words


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What became of comparing a canary's requests and answers with stable's over the same minutes."""

    state: Literal["no_drift", "drift", "too_few_rows"]
    sentence: str
    rows: int  # of each version
    columns: int  # that were compared
    look: int  # the how-manieth of the release
    drifted: tuple[DriftedColumn, ...] = ()  # worst first


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
