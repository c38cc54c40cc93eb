"""The commands offered to a person are those the controller accepts, with what each of them will do."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from rollout.control import commands as c
from rollout.errors import CommandRefused
from rollout.explain.choices import Choice, choices, how_to_try
from rollout.ledger import events as e
from rollout.ledger.state import Deployment, apply, fold
from rollout.spec import RolloutSpec

TAGS = ("m:v0", "m:v1", "m:v2")
SPEC = RolloutSpec(steps=("shadow", 5, 100))


def request(restore: e.Restore | None = None) -> e.ReleaseRequested:
    tag = "m:v0" if restore else "m:v2"
    return e.ReleaseRequested(at_s=2, release=1, tag=tag, stable="m:v1", spec=SPEC, by="ann", restore=restore)


STEPPING = e.StepEntered(at_s=3, release=1, step=1, weight_percent=5, mirror=False, reason="ready")
PROMOTED = e.Promoted(at_s=4, release=1, reason="passed")
STATES = {
    "nothing runs": (),
    "starting": (request(),),
    "stepping": (request(), STEPPING),
    "paused": (request(), STEPPING, e.Paused(at_s=4, release=1, reason="lunch", by="ann")),
    "watching": (request(), STEPPING, PROMOTED),
    "leaving": (request(), STEPPING, e.Aborted(at_s=4, release=1, reason="enough", by="ann")),
    "being restored": (request(e.Restore()),),
    "watching what was restored": (request(e.Restore(quarantine=True)), PROMOTED),
}
SOLD = fold([e.StableSet(at_s=0, tag="m:v0"), e.StableSet(at_s=1, tag="m:v1")])


def commands() -> Iterator[c.Command]:
    yield from (c.Pause("ann"), c.Resume("ann"), c.PromoteNow("ann"), c.Abort("ann"), c.RollbackNow("ann"))
    yield from (c.Restore(tag, "ann") for tag in TAGS)


def accepted(deployment: Deployment) -> set[str]:
    """All commands that the controller accepts now, as they are typed."""
    names = {c.Pause: "pause", c.Resume: "resume", c.PromoteNow: "promote", c.Abort: "abort", c.RollbackNow: "rollback"}
    found = set()
    for command in commands():
        try:
            c.accept(command, deployment, known_tags=TAGS, next_number=2, now_s=10)
        except CommandRefused:
            continue
        found.add(f"restore {command.tag}" if isinstance(command, c.Restore) else names[type(command)])
    return found


@pytest.mark.parametrize("state", STATES)
def test_exactly_the_accepted_commands_are_offered(state: str) -> None:
    """In every state of a release, no offered command is refused and no accepted one is missing."""
    deployment = fold(STATES[state], SOLD)
    assert {choice.command.removeprefix("kanaria ") for choice in choices(deployment)} == accepted(deployment)


def of(deployment: Deployment, name: str) -> Choice:
    return next(choice for choice in choices(deployment) if choice.name == name)


def test_each_offered_command_says_what_it_will_do() -> None:
    """It names the versions, and any quarantine that starts or is lifted."""
    stepping, watching = (fold(STATES[state], SOLD) for state in ("stepping", "watching what was restored"))
    assert of(stepping, "pause").effect.startswith("m:v2 keeps 5 % of the traffic")
    assert of(stepping, "rollback").effect == (
        "All traffic returns to m:v1 now. m:v2 goes into quarantine: it does not come back by itself."
    )
    assert "m:v1, whose" not in of(stepping, "rollback").effect
    assert "m:v1 now, whose quarantine is lifted. m:v0 goes into quarantine" in of(watching, "rollback").effect
    assert "without steps" in of(SOLD, "restore").effect


def test_what_a_rollback_says_about_quarantine_is_true() -> None:
    """The events of each rollback quarantine exactly the versions that its text names."""
    for state in ("starting", "stepping", "watching", "being restored", "watching what was restored"):
        deployment = fold(STATES[state], SOLD)
        release = deployment.active
        assert release is not None
        (event,) = c.accept(c.RollbackNow("ann"), deployment, known_tags=TAGS, next_number=2, now_s=10)
        after = apply(replace(deployment), event)
        goes_in = release.canary in after.quarantined
        assert ("goes into quarantine" in of(deployment, "rollback").effect) is goes_in, state
        assert release.stable not in after.quarantined


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ((), "to put m:v2 on trial: kanaria release m:v2"),
        ((request(),), "m:v2 is on trial"),
        ((request(), STEPPING), "m:v2 is on trial"),
        ((*STATES["leaving"], e.Ended(at_s=5, release=1, outcome="aborted")), "kanaria release m:v2"),
        ((request(), STEPPING, e.RolledBack(at_s=4, release=1, signal="guard", reason="no")), "kanaria retry m:v2"),
    ],
)
def test_how_to_put_a_version_on_trial_is_a_command_that_is_accepted(events: tuple[e.Event, ...], says: str) -> None:
    """`kanaria up TAG` named a refused command if the version was in quarantine or already on trial."""
    assert how_to_try("m:v2", fold(events, SOLD)).endswith(says)
