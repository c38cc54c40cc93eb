"""The interface to a data plane. One contract test runs against every implementation."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from contract.own_answers import NO_ANSWERS, OwnAnswers
from rollout.fleet import Version
from rollout.signals.segments import Asked, Segments
from rollout.signals.sticky_users import UserFailure


@dataclass(frozen=True, slots=True)
class Split:
    """How traffic is split: the whole state, not a change, so applying it twice is harmless."""

    stable: Version
    canary: Version | None = None
    canary_percent: float = 0  # weight, 0-100, of at most two decimals
    mirror: bool = False  # send the canary a copy of every request and throw its answers away
    compare_percent: float = 0  # share of each version's requests also sent to the other; see `rollout.compare`
    sticky: str | None = None  # header whose value keeps a caller on one side; None: random per request
    fallback: Version | None = None  # answers if stable cannot and there is no canary; it gets no other requests
    answers: OwnAnswers = NO_ANSWERS  # what an observer counts of answers if versions do not count themselves
    segments: Segments | None = None  # requests are also counted by the value of a header

    @property
    def versions(self) -> tuple[Version, ...]:
        return tuple(version for version in (self.stable, self.canary, self.fallback) if version is not None)

    @property
    def keeps_contract(self) -> bool:
        """Whether every version keeps the model contract; otherwise requests are passed as the services declare."""
        return all(version.service.keeps_contract for version in self.versions)


@dataclass(frozen=True, slots=True)
class ObservedSplit:
    """The split now in force, read back from the data plane."""

    stable: str
    canary: str | None
    canary_percent: float
    mirror: bool
    fallback: str | None = None
    compare_percent: float = 0

    @property
    def stable_percent(self) -> float:
        """Stable's share: all that the canary does not get."""
        return round(100 - self.canary_percent, 2)


@dataclass(frozen=True, slots=True)
class Refused:
    """Requests that got a 4xx status from the data plane. Some counted in `otherwise` may come from a version."""

    for_key: int = 0  # the key was missing or unknown
    otherwise: int = 0  # such as to a path that no version has

    def __bool__(self) -> bool:
        return bool(self.for_key or self.otherwise)

    def since(self, before: "Refused") -> "Refused":
        """The requests after `before`; all of them if a count fell, because the data plane was restarted."""
        if self.for_key < before.for_key or self.otherwise < before.otherwise:
            return self
        return Refused(self.for_key - before.for_key, self.otherwise - before.otherwise)


class TrafficRouter(Protocol):
    """What the controller may ask of a data plane."""

    @property
    def asks_for_keys(self) -> bool:
        """Whether the data plane knows callers by the names of their keys."""

    def apply(self, split: Split) -> None:
        """Ask for `split`. Idempotent; the data plane serves through the change. Raises RouterRefused."""

    def observed(self) -> ObservedSplit | None:
        """The split in force; None while it converges or cannot be read."""

    def requests_in_flight(self, tag: str) -> int | None:
        """Requests that `tag` has not answered yet, for draining; None: unknown."""

    def refused(self) -> Refused | None:
        """Requests that the data plane refused since its start; None: unknown."""


class GatewayHealth(Enum):
    """What a new client gets from the data plane."""

    UNKNOWN = "unknown"  # not checked yet
    READY = "ready"
    FULL = "full"  # it rejects clients, because its limit is reached
    SILENT = "silent"  # no answer


class GatewayState(Protocol):
    """What is known of the data plane from outside."""

    @property
    def health(self) -> GatewayHealth: ...

    @property
    def trouble(self) -> str | None:
        """What is wrong with the data plane, in words; None: nothing."""


class SegmentLog(Protocol):
    """The log of values that are not segments yet, which a data plane writes while a split looks for them."""

    def read(self, version: str) -> Sequence[Asked]:
        """Successful requests to `version` with such a value, since the last call. Raises SourceUnreachable."""

    def clear(self) -> None:
        """Drop everything. Raises SourceUnreachable."""


class FailureLog(Protocol):
    """The log of users whose requests failed, which a data plane writes while it keeps callers on one side."""

    def read(self, offset: int) -> tuple[Sequence[UserFailure], int]:
        """The failures written since `offset`, and where to continue reading. Raises SourceUnreachable."""

    def trim(self, offset: int) -> int:
        """Drop the log up to `offset`, which the ledger has. Returns where to continue reading."""

    def clear(self) -> None:
        """Drop everything, because users are not counted now. Raises SourceUnreachable."""
