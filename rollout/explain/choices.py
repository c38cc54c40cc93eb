"""The commands that a person can give now, and what each will do. The rules are those of `rollout.control.commands`."""

from collections.abc import Iterator
from dataclasses import dataclass

from rollout.format import span, weight
from rollout.ledger.state import Deployment, Phase, Release

_RESTORABLE = 5  # versions that are offered; the one promoted last comes first


@dataclass(frozen=True, slots=True)
class Choice:
    """One command that would be accepted now."""

    name: str  # `pause`, `resume`, `promote`, `abort`, `rollback` or `restore`
    tag: str | None  # of `restore`
    effect: str  # what it will do, one or two sentences

    @property
    def command(self) -> str:
        """The command line."""
        return f"kanaria {self.name} {self.tag}" if self.tag else f"kanaria {self.name}"


def choices(deployment: Deployment) -> tuple[Choice, ...]:
    """Every command for the running release; without one, the versions that can be restored."""
    release = deployment.active
    if release is None:
        return tuple(
            Choice("restore", tag, _restored(tag, deployment.stable or ""))
            for tag in deployment.restorable[:_RESTORABLE]
        )
    match release.phase:
        case Phase.STARTING | Phase.STEPPING:
            return tuple(_of_trial(release))
        case Phase.WATCHING:
            return tuple(_of_watch(release, deployment))
        case Phase.LEAVING | Phase.ENDED:
            return ()


def how_to_try(tag: str, deployment: Deployment) -> str:
    """How to put a version on trial that is not stable."""
    release = deployment.active
    if release and release.canary == tag and release.phase in (Phase.STARTING, Phase.STEPPING):
        return f"{tag} is on trial"
    command = "retry" if tag in deployment.quarantined else "release"
    return f"to put {tag} on trial: kanaria {command} {tag}"


def _of_trial(release: Release) -> Iterator[Choice]:
    canary, stable = release.canary, release.stable
    if release.is_paused:
        again = " Its present step is measured again from the start." if release.phase is Phase.STEPPING else ""
        yield Choice("resume", None, f"The release of {canary} goes on.{again}")
    else:
        keeps = f"keeps {_has(release)}" if release.phase is Phase.STEPPING else "gets no traffic"
        yield Choice(
            "pause",
            None,
            f"{canary} {keeps}, and goes no further until it is resumed. Evidence against it still rolls it back.",
        )
    if release.phase is Phase.STEPPING:
        warm = f"{stable} stays warm for {span(release.spec.watch)}"
        yield Choice(
            "promote", None, f"{canary} takes all traffic now, without the proof that is still missing. {warm}."
        )
    is_kept_out = not (release.restore and release.phase is Phase.STARTING)
    kept_out = f"{canary} goes into quarantine: it does not come back by itself" if is_kept_out else "No quarantine"
    yield Choice("rollback", None, f"All traffic returns to {stable} now. {kept_out}.")
    yield Choice("abort", None, f"All traffic returns to {stable} now. {canary} may be released again at any time.")


def _of_watch(release: Release, deployment: Deployment) -> Iterator[Choice]:
    canary, stable = release.canary, release.stable
    lifted = f", whose quarantine is lifted. {canary}" if stable in deployment.quarantined else f". {canary}"
    yield Choice("rollback", None, f"All traffic returns to {stable} now{lifted} goes into quarantine.")
    yield Choice(
        "promote", None, f"The watch of {canary} ends now: {stable} stops, and `kanaria rollback` cannot return to it."
    )
    for tag in deployment.restorable[:_RESTORABLE]:
        if tag == stable:
            yield Choice("restore", tag, f"All traffic returns to {tag} now. {canary} does not go into quarantine.")
        else:
            yield Choice("restore", tag, f"The watch of {canary} ends. {_restored(tag, canary)}")


def _restored(tag: str, replaced: str) -> str:
    return f"{tag} is started and takes all traffic from {replaced} as soon as it is ready, without steps."


def _has(release: Release) -> str:
    return "its copies" if release.mirror else f"{weight(release.live_percent)} of the traffic"
