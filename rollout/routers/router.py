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
    """How traffic is shared: the whole state, not a change, so applying it twice is harmless."""

    stable: Version
    canary: Version | None = None
    canary_percent: float = 0  # weight, 0-100, of at most two decimals
    mirror: bool = False  # send the canary a copy of every request and throw its answers away
    compare_percent: float = 0  # of each version's requests, sent to the other one as well; see `rollout.compare`
    sticky: str | None = None  # header whose value keeps a caller on one side; None: random per request
    fallback: Version | None = None  # answers what stable cannot, where there is no canary; it gets nothing else
    answers: OwnAnswers = NO_ANSWERS  # what an observer counts of them, where versions do not count themselves
    segments: Segments | None = None  # requests are counted by the value of a header as well

    @property
    def versions(self) -> tuple[Version, ...]:
        return tuple(version for version in (self.stable, self.canary, self.fallback) if version is not None)

    @property
    def keeps_contract(self) -> bool:
        """Whether every version keeps the model contract; else requests are passed as the services declare them."""
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
        """Stable's share: what the canary does not have."""
        return round(100 - self.canary_percent, 2)


@dataclass(frozen=True, slots=True)
class Refused:
    """Requests that got a 4xx status from the data plane. Of those answered otherwise some may be a version's."""

    for_key: int = 0  # it was missing, or is not known
    otherwise: int = 0  # such as to a path that no version has

    def __bool__(self) -> bool:
        return bool(self.for_key or self.otherwise)

    def since(self, before: "Refused") -> "Refused":
        """What came after `before`; everything where a count fell: the data plane was started again."""
        if self.for_key < before.for_key or self.otherwise < before.otherwise:
            return self
        return Refused(self.for_key - before.for_key, self.otherwise - before.otherwise)


class TrafficRouter(Protocol):
    """What the controller may ask of a data plane."""

    @property
    def asks_for_keys(self) -> bool:
        """Whether it knows callers by the names of their keys."""

    def apply(self, split: Split) -> None:
        """Ask for `split`. Idempotent; keeps serving through the change. Raises RouterRefused."""

    def observed(self) -> ObservedSplit | None:
        """The split in force; None while it converges or cannot be read."""

    def requests_in_flight(self, tag: str) -> int | None:
        """Requests that `tag` has not answered yet, for draining; None when unknown."""

    def refused(self) -> Refused | None:
        """Requests that it refused since it was started; None when unknown."""


class GatewayHealth(Enum):
    """What a new client meets at the data plane."""

    UNKNOWN = "unknown"  # it was not asked yet
    READY = "ready"
    FULL = "full"  # it turns clients away: it has as many as it takes
    SILENT = "silent"  # no answer


class GatewayState(Protocol):
    """What is known of the data plane from outside."""

    @property
    def health(self) -> GatewayHealth: ...

    @property
    def trouble(self) -> str | None:
        """What is wrong with it, in words; None: nothing."""


class SegmentLog(Protocol):
    """The log in which a data plane writes values that are no segments yet, while a split looks for them."""

    def read(self, version: str) -> Sequence[Asked]:
        """Requests with such a value that `version` answered well, since the last call. Raises SourceUnreachable."""

    def clear(self) -> None:
        """Drop everything. Raises SourceUnreachable."""


class FailureLog(Protocol):
    """The log in which a data plane writes whose requests failed, while it keeps callers on one side."""

    def read(self, offset: int) -> tuple[Sequence[UserFailure], int]:
        """The failures written since `offset`, and where to continue reading. Raises SourceUnreachable."""

    def trim(self, offset: int) -> int:
        """Drop the log up to `offset`, which is in the ledger by now; returns where to continue reading."""

    def clear(self) -> None:
        """Drop everything: no users are counted now. Raises SourceUnreachable."""
