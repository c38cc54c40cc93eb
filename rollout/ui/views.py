"""The status as one JSON object: the controller sends it, and commands, pages and programs read it.

A reader does not import the code that builds it (`rollout.ui.status`): that would take longer than the command.
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rollout.judge import Pair, Verdict

StepState = Literal["done", "current", "left", "next"]  # left: the release ended at this step without promotion


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VersionView(_Part):
    """One version that runs or should run."""

    tag: str
    health: str  # `absent`, `starting`, `ready`, `unready`, `dead`
    weight_percent: float | None  # share of traffic, read back from the gateway; None: it cannot be read
    is_mirrored: bool = False  # gets a copy of every request
    restarts: int = 0  # workers that ended by themselves since it was started
    preparing: str = ""  # what is being done to create its environment; it loads after that


class StepView(_Part):
    """One entry of `steps`."""

    name: str  # `shadow`, `25 %`
    state: StepState


class MeansView(_Part):
    """The means of a signal whose events are numbers, in words."""

    stable: str | None  # None: no numbers yet
    canary: str | None
    difference: str  # how much more or less canary's mean is, and the limits of the true difference
    is_said_only: bool  # it does not affect the verdict


class SignalView(_Part):
    """The evidence of one signal."""

    name: str
    title: str
    verdict: Verdict
    log_e: float
    threshold: float | None  # log_e at which it alone fails the canary; None: never, it only bounds the risk
    stable: Pair
    canary: Pair
    excess_upper: float | None
    means: MeansView | None = None  # where events are numbers


class WatchView(_Part):
    """The evidence since the promotion; the evidence of the steps stays as it was at the decision."""

    verdict: Verdict
    log_e: float
    threshold: float
    signals: tuple[SignalView, ...]  # strongest evidence first


class DecisionView(_Part):
    """One decision."""

    at_s: float  # Unix seconds
    action: str
    title: str
    reason: str
    by: str


class ClientsView(_Part):
    """Users' requests to both versions in the last half minute, or since the first step."""

    span_s: float
    requests: int
    failed: int  # for the user
    # Requests that failed at one version and that the other version answered. Left out at 0: a command of an earlier
    # version, such as a `status --watch` that runs across an upgrade, refuses keys that it does not know.
    saved: int = Field(default=0, exclude_if=lambda saved: not saved)
    slow: dict[int, float]  # bound, ms -> share of answers slower than it


class ChoiceView(_Part):
    """One command that would be accepted now."""

    name: str  # as in `rollout.explain.choices`
    tag: str | None
    command: str  # the command line
    effect: str  # what it will do


class AskedView(_Part):
    """The release waits for a person."""

    since_s: float  # Unix seconds
    reason: str
    left_s: float | None  # measured seconds until it is rolled back; None: nothing happens by itself
    by_itself: str  # what happens if nobody decides, one sentence


class TraceView(_Part):
    """A release from its request until now, or its end. Times are Unix seconds."""

    from_s: float
    until_s: float
    weights: tuple[tuple[float, float], ...]  # (time, the canary's share from then on, percent)
    traffic: tuple[tuple[float, float, float], ...]  # (end of a span, requests a second to stable, and to the canary)


class ReleaseStatus(_Part):
    """The newest release, running or over."""

    number: int
    canary: str
    stable: str
    phase: str
    outcome: str | None
    is_paused: bool
    requested_s: float
    by: str
    sentence: str
    is_restore: bool = False  # it takes all traffic as soon as it is ready, without steps
    earlier: str | None  # what it took over from the previous release of the same versions, in words
    steps: tuple[StepView, ...]
    waits_for: str | None
    more_requests_needed: int | None
    eta_s: float | None
    deadline_s: float | None
    labels: str | None = None  # how many labels count and wait, and the labels by caller; None: neither is known
    budget: str | None = None  # how many users' requests may have been harmed; None: no budget in requests
    compared: str | None = None  # which requests go to both versions in a step; None: none
    verdict: Verdict | None
    log_e: float | None
    threshold: float | None
    signals: tuple[SignalView, ...]  # strongest evidence first
    decisions: tuple[DecisionView, ...]  # the last ones, newest last
    watch: WatchView | None = None  # None: it was not promoted, or nothing was judged since
    caution: str | None = None  # why the evidence is weaker than usual
    not_judged: str | None = None  # what was left out because it cannot be counted
    asked: AskedView | None = None  # None: no person is needed
    trace: TraceView | None = None  # None: nothing was counted yet


class StatusView(_Part):
    """Everything that a person wants to see first."""

    name: str
    at_s: float  # last beat of the control loop, Unix seconds
    stable: VersionView | None
    canary: VersionView | None  # after promotion the previous version, until the watch is over
    release: ReleaseStatus | None
    clients: ClientsView | None  # None when nothing was measured recently, and where no step is judged
    quarantined: dict[str, str]  # tag -> why
    last_action: str
    canary_role: Literal["canary", "before"] = "canary"
    troubles: tuple[str, ...] = ()  # problems that a person must fix, the worst first
    gateway: str = "unknown"  # its state for a new client: `ready`, `full`, `silent`
    choices: tuple[ChoiceView, ...] = ()  # commands that a person can give now


def strongest(signals: Iterable[SignalView]) -> list[SignalView]:
    """For each family of signals the signal with the strongest evidence, in the given order."""
    families: dict[str, SignalView] = {}
    for signal in signals:
        families.setdefault(signal.name.partition(":")[0], signal)
    return list(families.values())
