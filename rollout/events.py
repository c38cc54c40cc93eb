"""What the ledger holds: every fact and every decision of a deployment, as typed, immutable events.

Written by the controller, read by `state.py` (what is true now) and `view.py` (what happened).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from rollout.interfaces import DriftReport, PreflightResult
from rollout.spec import RolloutSpec

Outcome = Literal["promoted", "rolled_back", "aborted"]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    at_s: float  # Unix seconds
    release: int | None = None  # number of the release it belongs to


class CountsRecord(BaseModel):
    """New events of one signal since the last tick, (bad, total) on each side."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    signal: str
    stable: tuple[int, int]
    canary: tuple[int, int]


class SignalRecord(BaseModel):
    """The evidence of one signal as it stood at a tick."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    verdict: str
    log_e: float
    threshold: float
    stable: tuple[int, int]
    canary: tuple[int, int]
    excess_upper: float | None
    more_requests_needed: float | None
    limit: float | None = None  # the harmless share, where the canary is not compared with stable


class EvidenceRecord(BaseModel):
    """The judge's conclusion as it stood when something was decided."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    verdict: str
    reason: str
    log_e: float
    threshold: float
    signals: dict[str, SignalRecord]
    failed_log_e: float | None = None

    @property
    def decisive_log_e(self) -> float:
        """What decided FAIL where it came to that, else all evidence together."""
        return self.log_e if self.failed_log_e is None else self.failed_log_e


class StableSet(_Event):
    """The version that takes all traffic, chosen by a person."""

    kind: Literal["stable_set"] = "stable_set"
    tag: str


class ReleaseRequested(_Event):
    kind: Literal["release_requested"] = "release_requested"
    tag: str
    stable: str
    spec: RolloutSpec
    by: str
    retry: bool = False


class Calibrated(_Event):
    """How much noisier than independent requests stable's own history is, per signal."""

    kind: Literal["calibrated"] = "calibrated"
    phi: dict[str, float]
    history_s: float
    stable_errors: tuple[int, int] = (0, 0)  # failed and all requests of that history


class CanaryReady(_Event):
    kind: Literal["canary_ready"] = "canary_ready"
    took_s: float


class Preflighted(_Event):
    """The canary was tried out before any traffic."""

    kind: Literal["preflighted"] = "preflighted"
    result: PreflightResult


class DriftMeasured(_Event):
    """The canary's rows were compared with stable's over the same minutes."""

    kind: Literal["drift_measured"] = "drift_measured"
    report: DriftReport


class Ticked(_Event):
    """One look at the evidence: the new counts, and what the judge made of all of them."""

    kind: Literal["ticked"] = "ticked"
    window_s: float
    weight_percent: float
    mirror: bool
    counts: tuple[CountsRecord, ...]
    evidence: EvidenceRecord
    user_phi: float | None = None  # dispersion of the errors over stable's users; None: callers are not sticky
    action: str
    why: str


class StepEntered(_Event):
    """Decided: the canary's share of traffic from now on. Written before the gateway is asked."""

    kind: Literal["step_entered"] = "step_entered"
    step: int  # index in `steps`; for automatic steps, how many were taken before
    weight_percent: float
    mirror: bool
    reason: str
    by: str = "judge"
    evidence: EvidenceRecord | None = None


class Promoted(_Event):
    """Decided: the canary is the new stable; the old one stays warm for the watch."""

    kind: Literal["promoted"] = "promoted"
    reason: str
    by: str = "judge"
    evidence: EvidenceRecord | None = None


class RolledBack(_Event):
    """Decided: all traffic returns to the version before. Written before the gateway is asked."""

    kind: Literal["rolled_back"] = "rolled_back"
    # What gave the reason: a signal, `canary_down`, `startup`, `preflight`, `drift`, `deadline`, `guard`, `person`.
    signal: str
    reason: str
    by: str = "judge"
    evidence: EvidenceRecord | None = None


class Aborted(_Event):
    """Decided by a person: the release stops, weight 0."""

    kind: Literal["aborted"] = "aborted"
    reason: str
    by: str


class Paused(_Event):
    kind: Literal["paused"] = "paused"
    reason: str
    by: str


class Resumed(_Event):
    kind: Literal["resumed"] = "resumed"
    by: str


class Applied(_Event):
    """Read back from the gateway: this split is in force."""

    kind: Literal["applied"] = "applied"
    stable: str
    canary: str | None
    weight_percent: float
    mirror: bool


class Noted(_Event):
    """Something worth knowing that decided nothing."""

    kind: Literal["noted"] = "noted"
    topic: str  # `source_unreachable`, `source_back`, `router_refused`, `fleet`, `controller_started`
    text: str


class Ended(_Event):
    """The release is over: its loser is stopped and a new release may begin."""

    kind: Literal["ended"] = "ended"
    outcome: Outcome


Event = Annotated[
    StableSet
    | ReleaseRequested
    | Calibrated
    | CanaryReady
    | Preflighted
    | DriftMeasured
    | Ticked
    | StepEntered
    | Promoted
    | RolledBack
    | Aborted
    | Paused
    | Resumed
    | Applied
    | Noted
    | Ended,
    Field(discriminator="kind"),
]

EVENT: TypeAdapter[Event] = TypeAdapter(Event)
