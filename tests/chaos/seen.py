"""What was observed in one combination of a fault and a state: facts without a verdict, stored as one line of JSON."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rollout.ledger import events as e
from rollout.ledger.state import Deployment, Desired, Phase, apply, desired
from rollout.routers.router import ObservedSplit
from tests.chaos.users import Answer

Outcome = Literal["none", "running", "promoted", "rolled_back", "aborted"]


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Failure(_Fact):
    """A request that failed."""

    sent_s: float  # after the fault
    ended_s: float  # after the fault
    status: int  # 0: no answer
    version: str | None  # the version that answered; None: the gateway, or no answer
    error: str


class Split(_Fact):
    """A split of the traffic."""

    stable: str | None
    canary: str | None
    percent: float
    mirror: bool

    def __str__(self) -> str:
        share = f"{self.percent:g} % to {self.canary}" if self.canary else "no canary"
        return f"{self.stable} with {share}" + (" and a copy of all requests" if self.mirror else "")


class Held(Split):
    """A split that was in force for some time."""

    since_s: float  # after the fault
    for_s: float


class Seen(_Fact):
    """One combination."""

    fault: str
    state: str
    took_s: float  # the whole combination
    undone_s: float  # from the fault until it was completely undone
    requests: int
    slowest_s: float
    failures: tuple[Failure, ...]
    bad_answers: int  # failures that the bad canary answered
    bad_until_s: float  # when the last of these requests was sent, after the fault
    held: tuple[Held, ...]
    asked: tuple[Split, ...]  # the splits that the decisions in the ledger ask for, in order
    applied: tuple[Split, ...]  # the splits that the ledger says were in force, in order
    outcome: Outcome
    phase: str
    signal: str = ""
    reason: str = ""
    promoted_by: str = ""  # even if the version was rolled back later; empty: not promoted
    quarantined: dict[str, str] = {}
    ticks_after: int = 0  # ticks and decisions in the ledger after the fault was undone
    watched_s: float | None = None  # length of the watch; None: its end was not observed
    commands: dict[str, int] = {}  # exit codes by label; 124: timed out
    left: tuple[str, ...] = ()  # processes that still ran after `down`
    problems: tuple[str, ...] = ()  # why the driver could not continue


def asked_by(events: Iterable[e.Event]) -> tuple[Split, ...]:
    """Every split that the decisions ask for, in order."""
    deployment, splits = Deployment(), []
    for event in events:
        deployment = apply(deployment, event)
        splits.append(_of_desired(desired(deployment)))
    return without_repeats([split for split in splits if split.stable is not None])


def applied_by(events: Iterable[e.Event]) -> tuple[Split, ...]:
    """Every split that the ledger says was in force."""
    return without_repeats(
        [
            Split(stable=event.stable, canary=event.canary, percent=event.weight_percent, mirror=event.mirror)
            for event in events
            if isinstance(event, e.Applied)
        ]
    )


def held_by(splits: Sequence[tuple[float, ObservedSplit]], fault_s: float, end_s: float) -> tuple[Held, ...]:
    """How long the gateway had each split; times are Unix seconds."""
    ends = [at_s for at_s, _ in (*splits, (end_s, None))][1:]
    return tuple(
        Held(
            stable=split.stable,
            canary=split.canary,
            percent=split.canary_percent,
            mirror=split.mirror,
            since_s=round(at_s - fault_s, 2),
            for_s=round(until_s - at_s, 2),
        )
        for (at_s, split), until_s in zip(splits, ends, strict=True)
    )


def is_bad_answer(answer: Answer, bad: str | None) -> bool:
    """Whether the bad version answered this request with a failure."""
    return answer.has_failed and bad is not None and answer.version == bad


def failures_of(answers: Iterable[Answer], bad: str | None, fault_s: float) -> tuple[Failure, ...]:
    """Every failure that the bad version did not answer."""
    return tuple(
        Failure(
            sent_s=round(answer.sent_s - fault_s, 2),
            ended_s=round(answer.ended_s - fault_s, 2),
            status=answer.status,
            version=answer.version,
            error=answer.error,
        )
        for answer in answers
        if answer.has_failed and not is_bad_answer(answer, bad)
    )


def outcome_of(deployment: Deployment) -> Outcome:
    """The outcome of the newest release; `running` if it has not ended."""
    release = deployment.release
    if release is None:
        return "none"
    return release.outcome or "running"


def promoter_of(events: Iterable[e.Event]) -> str:
    """Who promoted the release, even if it was rolled back later."""
    return next((event.by for event in events if isinstance(event, e.Promoted)), "")


def phase_of(deployment: Deployment) -> str:
    """Where the newest release is, in words."""
    release = deployment.release
    if release is None:
        return "no release"
    return f"at {release.weight_percent:g} %" if release.phase is Phase.STEPPING else release.phase.value


def numbered(command: str, number: int) -> str:
    """The label of a command that runs at the same time as others."""
    return f"{command} ({number})"


def command_of(label: str) -> str:
    """The command with this label."""
    return re.sub(r" \(\d+\)$", "", label)


def without_repeats(splits: Sequence[Split]) -> tuple[Split, ...]:
    """The splits without those that equal the previous one."""
    return tuple(split for i, split in enumerate(splits) if i == 0 or split != splits[i - 1])


def _of_desired(wish: Desired) -> Split:
    return Split(stable=wish.stable, canary=wish.canary, percent=wish.weight_percent, mirror=wish.mirror)
