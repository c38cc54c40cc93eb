"""The result of a drift report, as JSON and in words. This module imports nothing slow."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from monitoring.drift.files import write_whole

Kind = Literal["data", "release"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Direction = Literal["up", "down", "shape"]  # of the mean of numbers; `shape`: the mean is the same, or these are words


_MOVED: Mapping[Direction, str] = {"up": "rose", "down": "fell", "shape": "changed"}


class State(StrEnum):
    """The outcome of a comparison. Too few rows do not count as `no_drift`."""

    NO_DRIFT = "no_drift"
    DRIFT = "drift"
    TOO_FEW_ROWS = "too_few_rows"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


class ColumnDrift(_Part):
    """One column. A higher `score` is worse: the share of rows that would have to change, 0-1."""

    column: str
    score: float
    threshold: float
    p_value: float  # corrected for the number of columns (Benjamini-Hochberg)
    direction: Direction
    says: str
    has_drifted: bool


class DriftResult(_Part):
    """One comparison."""

    kind: Kind  # data: traffic against the model's test data; release: a canary against stable
    version: str  # the version whose rows were compared
    against: str  # tag of the model with the reference, or of the stable version
    state: State
    at_s: float  # when it was made, Unix seconds
    since_s: float  # start of the period, Unix seconds
    until_s: float  # its end
    logged_requests: int  # of `version` in the period
    logged_rows: int  # of `version` in the period; an estimate unless all were read
    rows: int  # the rows that were used, drawn at random
    reference_rows: int  # the rows with which they were compared
    labelled_rows: int  # rows with feedback
    min_rows: int  # with fewer rows there is no finding
    min_requests: int
    alpha: float  # probability of finding any drift when nothing changed
    look: int = 1  # the 1-based number of this report about the release; `alpha` is this report's share of the rule's
    columns: tuple[ColumnDrift, ...]  # worst first
    left_out: tuple[str, ...] = ()  # what could not be compared, and why

    @property
    def drifted(self) -> tuple[ColumnDrift, ...]:
        return tuple(column for column in self.columns if column.has_drifted)

    @property
    def share(self) -> float:
        """Drifted columns as a share of all columns, 0-1."""
        return len(self.drifted) / len(self.columns) if self.columns else 0.0

    @property
    def size(self) -> str:
        """The number of rows behind the finding, and how often chance alone would find drift."""
        period = " to ".join(
            f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S}" for at_s in (self.since_s, self.until_s)
        )
        return (
            f"{self.rows:,} of about {self.logged_rows:,} rows of {self.logged_requests:,} requests from {period} UTC,"
            f" against {self.reference_rows:,} rows; {self.labelled_rows:,} with feedback. When nothing changed,"
            f" at most one report in {1 / self.alpha:,.0f} finds drift."
        )

    @property
    def sentence(self) -> str:
        """The finding in words."""
        whose, what = (
            (f"the traffic to {self.version}", f"the data that {self.against} was tested on")
            if self.kind == "data"
            else (f"the canary {self.version}", f"{self.against} over the same minutes")
        )
        match self.state:
            case State.TOO_FEW_ROWS:
                return (
                    f"too few rows to tell whether {whose} differs from {what}: {self.rows:,} rows of"
                    f" {self.logged_requests:,} requests against {self.reference_rows:,}; {self.min_rows:,} rows"
                    f" of {self.min_requests:,} requests are needed, and as many to compare with"
                )
            case State.NO_DRIFT:
                return f"{whose} does not differ in any of {len(self.columns)} columns from {what}"
            case State.DRIFT:
                worst = "; ".join(f"`{one.column}` {one.says}" for one in self.drifted[:3])
                ways = Counter(one.direction for one in self.drifted)
                moved = ", ".join(f"{ways[way]} {_MOVED[way]}" for way in _MOVED if ways[way])
                number = f"{len(self.drifted)} of {len(self.columns)} columns"
                return f"{whose} differs in {number} from {what} ({moved}): {worst}"


def read_result(path: Path) -> DriftResult | None:
    """The result in `path`; None if there is none or it cannot be read."""
    try:
        return DriftResult.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write_result(result: DriftResult, path: Path) -> None:
    """Write a result in one step. Raises NotWritten."""
    write_whole(path, result.model_dump_json(indent=2) + "\n")
