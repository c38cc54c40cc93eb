"""Commands of people and alerts. Each is checked against the present state; it becomes events or is refused."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import assert_never

from contract.complaints import nearest
from contract.own_answers import NO_ANSWERS, OwnAnswers
from contract.plain_text import read_as
from rollout.control.fitted_plan import NOT_COUNTED
from rollout.errors import CommandRefused
from rollout.ledger import events as e
from rollout.ledger.findings import DriftReport
from rollout.ledger.state import Deployment, Phase, Release
from rollout.observe import BY_DEFAULT, Observe
from rollout.spec import RolloutSpec

_LEAVES_SOON = "try again in a few seconds: it is answering its last requests"
_RESUMED, _SHOWN = "`kanaria resume` lets it go on", "`kanaria status --watch`"


@dataclass(frozen=True, slots=True)
class SetStable:
    """Give `tag` all traffic without a release: only for the very first version."""

    tag: str
    by: str
    answers: OwnAnswers = NO_ANSWERS  # what is read from its answers
    observe: Observe = BY_DEFAULT  # for how many requests


@dataclass(frozen=True, slots=True)
class StartRelease:
    """Put `tag` on trial against stable. `retry` lifts the quarantine of a tag that was rolled back."""

    tag: str
    spec: RolloutSpec
    by: str
    retry: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    by: str
    reason: str = "paused by a person"


@dataclass(frozen=True, slots=True)
class Resume:
    by: str


@dataclass(frozen=True, slots=True)
class PromoteNow:
    """Skip the remaining steps; during the watch, end the watch."""

    by: str


@dataclass(frozen=True, slots=True)
class Abort:
    by: str
    reason: str = "aborted by a person"


@dataclass(frozen=True, slots=True)
class RollbackNow:
    """Return to the previous version; after promotion, as long as that version is still warm."""

    by: str
    reason: str = "rolled back by a person"
    signal: str = "person"
    tag: str | None = None  # refuse if another version is on trial; None: whatever version it is


@dataclass(frozen=True, slots=True)
class Restore:
    """Give all traffic to `tag`, which was promoted before, as soon as it is ready; at once if it is still warm."""

    tag: str
    by: str
    reason: str | None = None
    quarantine: bool = False  # the version that it replaces goes into quarantine
    anyway: bool = False  # even if its preflight finds that callers would lose something
    may_end_watch: bool = True  # whether the person may take a promoted version out of its watch
    spec: RolloutSpec = field(default_factory=RolloutSpec)  # only its watch and its limits are used


@dataclass(frozen=True, slots=True)
class ReportDrift:
    """Store what a drift report found about the canary; if the plan says so, drift rolls the canary back."""

    canary: str
    report: DriftReport
    by: str = "drift"


Command = SetStable | StartRelease | Pause | Resume | PromoteNow | Abort | RollbackNow | Restore | ReportDrift


@dataclass(frozen=True, slots=True)
class ForWhatWasSeen:
    """A command for the newest release as its sender saw it: in a later state the command may do something else."""

    command: Command
    release: int | None  # the release's number; None: any
    phase: str | None  # the phase it was in; None: any

    def for_now(self, deployment: Deployment) -> Command:
        """The command. Raises CommandRefused if the release has changed since."""
        newest = deployment.release
        number, phase = (newest.number, newest.phase.value) if newest else (0, "")
        if self.release in (None, number) and self.phase in (None, phase):
            return self.command
        raise CommandRefused(
            "the release moved on since you looked, so nothing was done",
            saw=f"release {number} is {phase}" if newest else "there is no release",
            do="look at the status, and decide again",
        )


def are_safe(events: Iterable[e.Event]) -> bool:
    """Whether all of `events` only hold or reduce the canary's traffic: then they take effect even unwritten."""
    return all(isinstance(event, e.Paused | e.Aborted | e.RolledBack | e.DriftMeasured) for event in events)


def accept(
    command: Command,
    deployment: Deployment,
    *,
    known_tags: Collection[str],
    next_number: int,
    now_s: float,
    earlier: e.EarlierTry | None = None,
    left_out: str = "",
    is_better: bool = False,
) -> tuple[e.Event, ...]:
    """The events that `command` causes. Raises CommandRefused if the state does not allow it.

    Args:
        command: what is asked for.
        deployment: the present state.
        known_tags: tags of all versions; only needed for commands that name one.
        next_number: the number of a release that the command would start.
        now_s: Unix seconds.
        earlier: for a new release, what it takes over from the previous release of the same versions.
        left_out: what was removed from its plan because it cannot be counted, see `fitted_plan`.
        is_better: labels have proven the running canary better.
    """
    match command:
        case SetStable():
            return _set_stable(command, deployment, known_tags, now_s)
        case StartRelease():
            started = _start(command, deployment, known_tags, next_number, now_s, earlier=earlier)
            return (*started, *_not_counted(left_out, next_number, now_s))
        case Restore():
            restored = _restore(command, deployment, known_tags, next_number, now_s)
            is_release = any(isinstance(event, e.ReleaseRequested) for event in restored)
            return (*restored, *_not_counted(left_out if is_release else "", next_number, now_s))
    release = deployment.active
    if release is None:
        raise _nothing_runs(command, deployment)
    match command:
        case Pause(by=by, reason=reason):
            _require(release, release.phase in (Phase.STARTING, Phase.STEPPING), "be paused")
            _require(release, not release.is_paused, "be paused again")
            return (e.Paused(at_s=now_s, release=release.number, reason=reason, by=by),)
        case Resume(by=by):
            _require(release, release.is_paused, "be resumed: it is not paused")
            return (e.Resumed(at_s=now_s, release=release.number, by=by),)
        case PromoteNow(by=by):
            if release.phase is Phase.WATCHING:
                _refuse_the_same_person(deployment, release.canary, by, "taken out of the watch")
                return (e.Ended(at_s=now_s, release=release.number, outcome="promoted"),)
            _require(release, release.phase is Phase.STEPPING, "be promoted")
            _refuse_the_same_person(deployment, release.canary, by, "promoted")
            return (e.Promoted(at_s=now_s, release=release.number, reason=f"promoted by {by} without waiting", by=by),)
        case Abort(by=by, reason=reason):
            _require(release, release.phase in (Phase.STARTING, Phase.STEPPING), "be aborted")
            return (e.Aborted(at_s=now_s, release=release.number, reason=reason, by=by),)
        case RollbackNow(by=by, reason=reason, signal=signal, tag=named):
            _require(release, release.phase is not Phase.LEAVING, "be rolled back")
            _require(release, named in (None, release.canary), f"be rolled back because of {named}")
            return (e.RolledBack(at_s=now_s, release=release.number, signal=signal, reason=reason, by=by),)
        case ReportDrift():
            return _drift(command, release, now_s, is_better=is_better)
    assert_never(command)


def _refuse_the_same_person(deployment: Deployment, tag: str, by: str, be: str) -> None:
    """Raise CommandRefused where the plan asks for a second person and `by` released the version."""
    if read_as(by) in deployment.needs_another.get(tag, ()):
        raise CommandRefused(
            f"{tag} must be {be} by somebody else: its plan asks for a second person",
            saw=f"{by} released it",
            do="ask another approver; `kanaria rollback` and `kanaria abort` need nobody else",
        )


def _drift(command: ReportDrift, release: Release, now_s: float, *, is_better: bool) -> tuple[e.Event, ...]:
    _require(release, command.canary == release.canary, f"take a drift report about {command.canary}")
    report = command.report
    measured = e.DriftMeasured(at_s=now_s, release=release.number, report=report)
    if report.state != "drift" or release.spec.on_drift != "rollback" or release.phase is Phase.LEAVING:
        return (measured,)
    if release.is_warming_up or release.keeps_out_stable:
        return (measured,)  # nothing is judged yet, or only a person may return to stable
    if is_better and report.is_only_different:
        return (measured,)
    why = report.sentence
    return measured, e.RolledBack(at_s=now_s, release=release.number, signal="drift", reason=why, by=command.by)


def _set_stable(
    command: SetStable, deployment: Deployment, known_tags: Collection[str], now_s: float
) -> tuple[e.Event, ...]:
    tag = command.tag
    _require_known(tag, known_tags)
    if deployment.stable == tag:
        return ()
    if deployment.stable is not None:
        raise CommandRefused(
            f"{deployment.stable} is stable already", saw=f"asked for {tag}", do=f"release it: `kanaria release {tag}`"
        )
    return (e.StableSet(at_s=now_s, tag=tag, answers=command.answers, observe=command.observe),)


def _start(
    command: StartRelease,
    deployment: Deployment,
    known_tags: Collection[str],
    number: int,
    now_s: float,
    *,
    earlier: e.EarlierTry | None,
) -> tuple[e.Event, ...]:
    _require_known(command.tag, known_tags)
    if deployment.stable is None:
        raise CommandRefused(
            "there is no stable version to compare with", saw="no stable", do="run `kanaria up TAG` first"
        )
    if command.tag == deployment.stable:
        raise CommandRefused(f"{command.tag} is stable already", saw="nothing to release", do="choose another tag")
    if release := deployment.active:
        raise CommandRefused(
            "one release at a time",
            saw=f"{release.name} is {release.phase.value}",
            do=_first(release),
        )
    if (why := deployment.quarantined.get(command.tag)) and not command.retry:
        raise CommandRefused(
            f"{command.tag} is in quarantine: a failed version does not come back by itself",
            saw=why,
            do=f"`kanaria why {command.tag}`; if you still want it: `kanaria retry {command.tag}`",
        )
    if command.retry:
        _refuse_the_same_person(deployment, command.tag, command.by, "tried again")
    return (
        e.ReleaseRequested(
            at_s=now_s,
            release=number,
            tag=command.tag,
            stable=deployment.stable,
            spec=command.spec,
            by=command.by,
            retry=command.retry,
            tries=deployment.tries.get((deployment.stable, command.tag), 0) + 1,
            earlier=earlier,
        ),
    )


def _first(release: Release) -> str:
    """What must happen before another release can start."""
    match release.phase:
        case Phase.WATCHING:
            return "`kanaria promote` ends its watch"
        case Phase.LEAVING:
            return _LEAVES_SOON
    if release.is_paused:
        return f"{_RESUMED}, `kanaria abort` ends it"
    return f"wait for it ({_SHOWN}) or `kanaria abort` it"


def _restore(
    command: Restore, deployment: Deployment, known_tags: Collection[str], number: int, now_s: float
) -> tuple[e.Event, ...]:
    _require_known(command.tag, known_tags)
    tag, release = command.tag, deployment.active
    if deployment.stable is None:
        raise CommandRefused("there is no version to replace", saw="no stable", do=f"run `kanaria up {tag}`")
    if release and release.phase in (Phase.STARTING, Phase.STEPPING):
        first = "`kanaria rollback` (or `kanaria abort`, without quarantine)"
        if tag == release.canary:  # in quarantine it could not be restored
            first = "`kanaria abort`"
        again = "" if tag == deployment.stable else f", then `kanaria restore {tag}` again"
        is_on_its_way = release.restore is not None and tag == release.canary
        raise CommandRefused(
            f"{tag} is being restored already" if is_on_its_way else f"{release.name} is running: it must end first",
            saw=f"it is {release.phase.value}; {deployment.stable} is stable",
            do=_instead(release) if is_on_its_way else first + again,
        )
    if tag == deployment.stable:
        do = _restorable(deployment) or "nothing: there is no other version to restore"
        raise CommandRefused(f"{tag} is stable already", saw="nothing to restore", do=do)
    if tag not in deployment.promoted:
        raise CommandRefused(
            f"{tag} was never promoted here",
            saw=f"promoted here: {', '.join(deployment.promoted)}",
            do="; or ".join(filter(None, (f"release it: `kanaria release {tag}`", _restorable(deployment)))),
        )
    is_warm = release is not None and release.phase is Phase.WATCHING and tag == release.stable
    if why := deployment.quarantined.get(tag):
        still = "`kanaria rollback` returns to it" if is_warm else f"`kanaria retry {tag}` puts it on trial"
        raise CommandRefused(
            f"{tag} is in quarantine: a failed version does not come back by itself",
            saw=why,
            do="; ".join(filter(None, (_restorable(deployment), f"if you still want {tag}: {still}"))),
        )
    if release and is_warm:
        return (_returned(command, release, now_s),)
    if release and release.phase is Phase.LEAVING:
        raise CommandRefused(
            f"{release.canary} is answering its last requests",
            saw=f"{release.name} is ending",
            do="try again in a few seconds",
        )
    requested = _requested(command, deployment.stable, number, now_s)
    if release is None:
        return (requested,)
    _refuse_to_end_the_watch(command, deployment, release)
    return e.Ended(at_s=now_s, release=release.number, outcome="promoted"), requested  # its watch is over


def _refuse_to_end_the_watch(command: Restore, deployment: Deployment, release: Release) -> None:
    """Raise CommandRefused unless the person may end it: after an aborted restore the version would be unwatched."""
    _refuse_the_same_person(deployment, release.canary, command.by, "taken out of the watch")
    if not command.may_end_watch:
        raise CommandRefused(
            f"this would end the watch of {release.canary}, which your role does not allow",
            saw=f"{release.canary} is watched, and {command.tag} is not the version before it",
            do=f"`kanaria rollback` returns to {release.stable} now, and then `kanaria restore {command.tag}`; or ask "
            "an approver",
        )


def _returned(command: Restore, release: Release, now_s: float) -> e.RolledBack:
    """All traffic returns at once to the previous version, which is still warm."""
    return e.RolledBack(
        at_s=now_s,
        release=release.number,
        signal="person",
        reason=f"{command.tag} was restored" + (f": {command.reason}" if command.reason else ""),
        by=command.by,
        quarantine=command.quarantine,
    )


def _requested(command: Restore, stable: str, number: int, now_s: float) -> e.ReleaseRequested:
    return e.ReleaseRequested(
        at_s=now_s,
        release=number,
        tag=command.tag,
        stable=stable,
        spec=command.spec,
        by=command.by,
        restore=e.Restore(reason=command.reason, quarantine=command.quarantine, anyway=command.anyway),
    )


def _restorable(deployment: Deployment) -> str:
    """How to restore another version; empty: there is none."""
    if not deployment.restorable:
        return ""
    first, *others = deployment.restorable
    also = f" ({', '.join(others)} can be restored as well)" if others else ""
    return f"`kanaria restore {first}` restores {first}{also}"


def _nothing_runs(command: Command, deployment: Deployment) -> CommandRefused:
    stable = deployment.stable
    if isinstance(command, RollbackNow | Abort) and deployment.restorable:
        return CommandRefused(
            f"no release is running, and the watch of {stable} is over",
            saw=f"only {stable} is running",
            do=_restorable(deployment),
        )
    return CommandRefused("no release is running", saw=f"stable is {stable}", do="start one with `kanaria release TAG`")


def _not_counted(text: str, number: int, now_s: float) -> tuple[e.Event, ...]:
    return (e.Noted(at_s=now_s, release=number, topic=NOT_COUNTED, text=text),) if text else ()


def _require_known(tag: str, known_tags: Collection[str]) -> None:
    if tag not in known_tags:
        raise CommandRefused(
            f"there is no version {tag}{nearest(tag, known_tags)}",
            saw=f"versions here: {', '.join(sorted(known_tags)) or 'none'}",
            do="build it (`bentoml build --version ...`), list it in the file KANARIA_VERSIONS, or correct the tag",
        )


def _require(release: Release, allowed: bool, what: str) -> None:
    if not allowed:
        paused = ", paused" if release.is_paused else ""
        raise CommandRefused(
            f"{release.name} cannot {what}", saw=f"it is {release.phase.value}{paused}", do=_instead(release)
        )


def _instead(release: Release) -> str:
    """What can be done instead with a release that does not allow the command."""
    match release.phase:
        case Phase.STARTING if release.is_paused:
            return f"{_RESUMED}, `kanaria abort` ends it"
        case Phase.STARTING if release.restore:
            return f"wait until it is ready: then it takes all traffic ({_SHOWN}), or `kanaria abort` it"
        case Phase.STARTING:
            return f"wait for its first step ({_SHOWN}), or `kanaria abort` it"
        case Phase.WATCHING:
            return f"`kanaria rollback` returns to {release.stable}, `kanaria promote` ends the watch"
        case Phase.LEAVING:
            return "nothing: it is decided, and ends in a few seconds"
    return _RESUMED if release.is_paused else "see `kanaria status`"
