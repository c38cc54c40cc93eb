"""Findings about a canary that the ledger stores: the preflight's result and the drift report."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PreflightResult:
    """The result of testing a canary before any user's request reached it."""

    differences: tuple[str, ...]  # why it must not get traffic; empty: it passed
    remarks: tuple[str, ...] = ()  # worth knowing, but not a reason to refuse
    allowed: tuple[str, ...] = ()  # what callers of stable lose and the plan accepts
    is_comparable: bool = True  # whether it is known what both versions accept and answer
    golden_requests: int = 0  # how many were replayed
    recorded_requests: int = 0  # users' requests that were replayed to it and to stable
    p50_ms: float | None = None  # median answer time of these requests; None: there was no answer
    slowest_ms: float | None = None
    memory_mb: float | None = None  # of all its processes; None: it cannot be read
    stable_memory_mb: float | None = None


_ANSWERS = ("label", "confidence")  # columns of the prediction log that a better model changes


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
    """The result of comparing a canary's requests and answers with stable's over the same minutes."""

    state: Literal["no_drift", "drift", "too_few_rows"]
    sentence: str
    rows: int  # of each version
    columns: int  # number of compared columns
    look: int  # 1-based number of the comparison within the release
    drifted: tuple[DriftedColumn, ...] = ()  # worst first

    @property
    def is_only_different(self) -> bool:
        """Whether only its answers have drifted, but not its requests and not how often it is wrong."""
        return all(column.column in _ANSWERS for column in self.drifted)
