"""The ledger's events: every fact and every decision of a deployment, typed and immutable.

Evidence is stored in the judge's own types. The shape of the events has a number, see `migrations`.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from contract.own_answers import NO_ANSWERS, OwnAnswers
from contract.plain_text import one_line, printable
from rollout.judge import Judgement, OwnNoise, Pair, Window
from rollout.judge.types import BothNumbers, BothPairs
from rollout.ledger.findings import DriftReport, PreflightResult
from rollout.observe import BY_DEFAULT, Observe
from rollout.spec import RolloutSpec

# Topics of notes.
WATCH_INTERRUPTED = "watch_interrupted"  # the stack was taken down during the watch
ANSWERS_DIFFER = "answers_differ"  # the fields in which a canary's answers differ from stable's
REQUESTS_REFUSED = "requests_refused"  # how many requests the gateway refused while no version got any, and why


_Counts = dict[str, Pair | BothNumbers | Mapping[str, BothPairs]]  # of one window, by side or kind
Name = Annotated[str, AfterValidator(one_line)]
Words = Annotated[str, AfterValidator(printable)]
Outcome = Literal["promoted", "rolled_back", "aborted"]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    at_s: float  # Unix seconds
    release: int | None = None  # number of the release it belongs to

    def stored(self) -> str:
        """The JSON that the ledger stores."""
        return self.model_dump_json()


class EarlierTry(BaseModel):
    """What the next release takes over from the previous release of the same two versions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: int
    log_e: float  # the evidence at its end
    has_failed: bool = False  # the evidence was enough to FAIL, and none of it carries over
    carried: dict[str, float] = Field(default_factory=dict)  # log evidence by signal; see `rollout.judge.carried`


class StableSet(_Event):
    """The version that takes all traffic, chosen by a person."""

    kind: Literal["stable_set"] = "stable_set"
    tag: str
    answers: OwnAnswers = NO_ANSWERS  # what is read from its answers until a release changes it
    observe: Observe = BY_DEFAULT  # for how many requests


class Restore(BaseModel):
    """What a person chose when restoring a version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: Words | None = None
    quarantine: bool = False  # the replaced version goes into quarantine
    anyway: bool = False  # the version gets the traffic whatever its preflight finds


class ReleaseRequested(_Event):
    kind: Literal["release_requested"] = "release_requested"
    tag: str
    stable: str
    spec: RolloutSpec
    by: Name
    retry: bool = False
    tries: int = 1  # tries of these two versions, including this one; an earlier one counts if it entered a step
    earlier: EarlierTry | None = None  # None: no earlier release of these two versions, or nothing to take over
    restore: Restore | None = None  # `tag` takes all traffic as soon as it is ready; None: it is on trial


class Calibrated(_Event):
    """How much noisier than independent requests stable's own history is, by signal."""

    kind: Literal["calibrated"] = "calibrated"
    phi: dict[str, float]
    noise: dict[str, OwnNoise] | None = None  # the part that may hit one version alone; None: all (older versions)
    history_s: float
    stable_errors: Pair = Pair(0, 0)  # failed and all requests of that history


class CanaryReady(_Event):
    kind: Literal["canary_ready"] = "canary_ready"
    took_s: float


class Preflighted(_Event):
    """The canary was tested before any traffic."""

    kind: Literal["preflighted"] = "preflighted"
    result: PreflightResult


class SegmentsFound(_Event):
    """Values of the plan's segment header; from now on each is a segment of its own."""

    kind: Literal["segments_found"] = "segments_found"
    names: tuple[Name, ...]


class DriftMeasured(_Event):
    """The canary's rows were compared with stable's over the same minutes."""

    kind: Literal["drift_measured"] = "drift_measured"
    report: DriftReport


class Ticked(_Event):
    """One judged measurement: the new counts, and the judgement on all counts so far."""

    kind: Literal["ticked"] = "ticked"
    window_s: float
    weight_percent: float
    mirror: bool
    windows: tuple[Window, ...]  # all have the tick's end and length
    evidence: Judgement
    user_phi: float | None = None  # dispersion of the errors over stable's users; None: callers are not sticky
    action: str
    why: Words

    def stored(self) -> str:
        """JSON without fields that are None, to save space: a ledger consists mostly of ticks."""
        return self.model_dump_json(exclude_none=True)

    @field_serializer("windows")
    def _without_times(self, windows: tuple[Window, ...]) -> dict[str, _Counts]:
        return {
            window.signal: {"stable": window.stable, "canary": window.canary}
            | ({"numbers": window.numbers} if window.numbers else {})
            | ({"callers": window.callers} if window.callers else {})
            for window in windows
        }

    @field_validator("windows", mode="before")
    @classmethod
    def _with_times(cls, windows: object, info: ValidationInfo) -> object:
        if not isinstance(windows, dict):
            return windows
        times = {"end_s": info.data.get("at_s"), "window_s": info.data.get("window_s")}
        return [{"signal": signal, **times, **pairs} for signal, pairs in windows.items()]


class StepEntered(_Event):
    """Decided: the canary's share of traffic from now on. Written before the gateway is asked."""

    kind: Literal["step_entered"] = "step_entered"
    step: int  # index in `steps`; for automatic steps, how many were taken before
    weight_percent: float
    mirror: bool
    reason: Words
    by: Name = "judge"
    evidence: Judgement | None = None


class Promoted(_Event):
    """Decided: the canary is the new stable; the old one stays warm for the watch."""

    kind: Literal["promoted"] = "promoted"
    reason: Words
    by: Name = "judge"
    evidence: Judgement | None = None


class RolledBack(_Event):
    """Decided: all traffic returns to the previous version. Written before the gateway is asked."""

    kind: Literal["rolled_back"] = "rolled_back"
    # The kind of reason: a signal, `canary_down`, `startup`, `preflight`, `drift`, `deadline`, `guard`, `person`.
    signal: str
    reason: Words
    by: Name = "judge"
    evidence: Judgement | None = None
    quarantine: bool = True  # the canary goes into quarantine


class Aborted(_Event):
    """Decided by a person: the release stops, weight 0."""

    kind: Literal["aborted"] = "aborted"
    reason: Words
    by: Name


class Paused(_Event):
    kind: Literal["paused"] = "paused"
    reason: Words
    by: Name


class Resumed(_Event):
    kind: Literal["resumed"] = "resumed"
    by: Name


class PersonAsked(_Event):
    """The release waits for a person."""

    kind: Literal["person_asked"] = "person_asked"
    reason: Words
    left_s: float | None = None  # measured seconds until it is rolled back; None: nothing happens by itself


class PersonNotNeeded(_Event):
    """The reason to ask a person is gone, without a decision."""

    kind: Literal["person_not_needed"] = "person_not_needed"


class Applied(_Event):
    """Read back from the gateway: this split is in force."""

    kind: Literal["applied"] = "applied"
    stable: str
    canary: str | None
    weight_percent: float
    mirror: bool
    compare_percent: float = 0.0  # share of each version's requests that also go to the other version


class Noted(_Event):
    """Something worth knowing that decided nothing."""

    kind: Literal["noted"] = "noted"
    # `source_unreachable` and `source_back` (nothing is read), `store_unreachable` and `store_back` (counters are read
    # directly), `clock_jumped`, `router_refused`, `fleet`, `controller_started`, `disk_full`, `watch_interrupted`,
    # `answers_differ`, `segments_unread`, `suspended` (a version, because the gateway kept sending it requests).
    topic: str
    text: Words


class Ended(_Event):
    """The release is over, and a new one may begin."""

    kind: Literal["ended"] = "ended"
    outcome: Outcome


Event = Annotated[
    StableSet
    | ReleaseRequested
    | Calibrated
    | CanaryReady
    | Preflighted
    | SegmentsFound
    | DriftMeasured
    | Ticked
    | StepEntered
    | Promoted
    | RolledBack
    | Aborted
    | Paused
    | Resumed
    | PersonAsked
    | PersonNotNeeded
    | Applied
    | Noted
    | Ended,
    Field(discriminator="kind"),
]

EVENT: TypeAdapter[Event] = TypeAdapter(Event)
