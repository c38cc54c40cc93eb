"""Commands are checked against the current state; a refusal says what to do."""

from dataclasses import replace

import pytest

from rollout.control import commands as c
from rollout.errors import CommandRefused
from rollout.ledger import events as e
from rollout.ledger.state import Deployment, fold
from rollout.spec import RolloutSpec

TAGS = ("m:v1", "m:v2", "m:v3")


def accept(command: c.Command, deployment: Deployment) -> tuple[e.Event, ...]:
    return c.accept(command, deployment, known_tags=TAGS, next_number=2, now_s=100.0)


def at(*events: e.Event) -> Deployment:
    return fold((e.StableSet(at_s=0, tag="m:v1"), *events))


REQUESTED = e.ReleaseRequested(at_s=1, release=1, tag="m:v2", stable="m:v1", spec=RolloutSpec(), by="ann")
STEPPED = e.StepEntered(at_s=2, release=1, step=1, weight_percent=5, mirror=False, reason="ready")
ROLLED_BACK = e.RolledBack(at_s=3, release=1, signal="errors", reason="12 of 240 failed")
PROMOTED = e.Promoted(at_s=3, release=1, reason="safe")
PAUSED = e.Paused(at_s=3, release=1, reason="", by="ann")
ENDED = e.Ended(at_s=4, release=1, outcome="rolled_back")
START = c.StartRelease(tag="m:v2", spec=RolloutSpec(), by="ann")


def test_a_release_starts_against_stable() -> None:
    """The event stores the version that the canary is compared with."""
    (event,) = accept(START, at())
    assert isinstance(event, e.ReleaseRequested)
    assert (event.tag, event.stable, event.release) == ("m:v2", "m:v1", 2)


def test_an_unknown_tag_is_refused_with_the_known_ones() -> None:
    """A mistyped tag is refused before anything starts."""
    with pytest.raises(CommandRefused, match="m:v1, m:v2, m:v3"):
        accept(c.StartRelease(tag="m:v9", spec=RolloutSpec(), by="ann"), at())


def test_a_second_release_is_refused_while_one_runs() -> None:
    """With two canaries it would be unclear which one did harm."""
    with pytest.raises(CommandRefused, match="one release at a time"):
        accept(c.StartRelease(tag="m:v3", spec=RolloutSpec(), by="ann"), at(REQUESTED))


def test_releasing_stable_is_refused() -> None:
    """A version cannot be compared with itself."""
    with pytest.raises(CommandRefused, match="stable already"):
        accept(c.StartRelease(tag="m:v1", spec=RolloutSpec(), by="ann"), at())


def test_a_failed_version_stays_in_quarantine_until_retry() -> None:
    """Quarantine shows the reason, and only `retry` lifts it."""
    failed = at(REQUESTED, STEPPED, ROLLED_BACK, ENDED)
    with pytest.raises(CommandRefused, match="12 of 240 failed"):
        accept(START, failed)
    assert accept(c.StartRelease(tag="m:v2", spec=RolloutSpec(), by="ann", retry=True), failed)


def test_an_aborted_version_may_be_released_again() -> None:
    """A person who stops a release does not say that the version is bad."""
    aborted = at(REQUESTED, e.Aborted(at_s=2, release=1, reason="lunch", by="ann"), ENDED)
    assert accept(START, aborted)


@pytest.mark.parametrize(
    "command", [c.Pause("ann"), c.Resume("ann"), c.PromoteNow("ann"), c.Abort("ann"), c.RollbackNow("ann")]
)
def test_release_commands_are_refused_when_no_release_runs(command: c.Command) -> None:
    """The message says how to start a release."""
    with pytest.raises(CommandRefused, match="no release is running"):
        accept(command, at())


def test_pausing_twice_or_resuming_a_running_release_is_refused() -> None:
    """Only a running release can be paused, and only a paused one resumed."""
    running = at(REQUESTED, STEPPED)
    paused = fold(accept(c.Pause("ann"), running), running)
    with pytest.raises(CommandRefused):
        accept(c.Pause("ann"), paused)
    resumed = fold(accept(c.Resume("ann"), paused), paused)
    with pytest.raises(CommandRefused):
        accept(c.Resume("ann"), resumed)


def test_promote_ends_the_watch() -> None:
    """After promotion the same command stops the previous version."""
    (event,) = accept(c.PromoteNow("ann"), at(REQUESTED, STEPPED, PROMOTED))
    assert event == e.Ended(at_s=100.0, release=1, outcome="promoted")


def test_rollback_works_after_promotion_while_the_previous_version_is_warm() -> None:
    """It is possible during the whole watch, and makes the old version stable again."""
    watching = at(REQUESTED, STEPPED, PROMOTED)
    assert watching.stable == "m:v2"
    assert fold(accept(c.RollbackNow("ann"), watching), watching).stable == "m:v1"


def test_an_alert_about_another_version_does_nothing() -> None:
    """Harm by another version must not roll this one back."""
    with pytest.raises(CommandRefused, match="because of m:v1"):
        accept(c.RollbackNow("alertmanager", tag="m:v1"), at(REQUESTED, STEPPED))


def test_a_decided_release_takes_no_further_commands() -> None:
    """Nothing about a version can be changed while it is leaving."""
    leaving = at(REQUESTED, STEPPED, ROLLED_BACK)
    for command in (c.Pause("ann"), c.PromoteNow("ann"), c.Abort("ann"), c.RollbackNow("ann")):
        with pytest.raises(CommandRefused):
            accept(command, leaving)


@pytest.mark.parametrize(
    ("events", "command", "words"),
    [
        ((), c.PromoteNow("ann"), "wait for its first step"),
        ((PAUSED,), c.PromoteNow("ann"), "`kanaria resume` lets it go on, `kanaria abort` ends it"),
        ((PAUSED,), START, "`kanaria resume` lets it go on, `kanaria abort` ends it"),
        ((STEPPED, PAUSED), START, "`kanaria resume` lets it go on, `kanaria abort` ends it"),
        ((STEPPED, PAUSED), c.Pause("ann"), "`kanaria resume`"),
        ((STEPPED, PROMOTED), c.Abort("ann"), "`kanaria rollback` returns to m:v1"),
        ((STEPPED, PROMOTED), c.Pause("ann"), "`kanaria promote` ends the watch"),
        ((STEPPED, PROMOTED), replace(START, tag="m:v3"), "`kanaria promote` ends its watch"),
        ((STEPPED, ROLLED_BACK), c.PromoteNow("ann"), "nothing: it is decided"),
        ((STEPPED, ROLLED_BACK), START, "try again in a few seconds"),
        ((STEPPED,), START, "`kanaria abort`"),
    ],
)
def test_a_refusal_names_only_commands_that_are_accepted_now(
    events: tuple[e.Event, ...], command: c.Command, words: str
) -> None:
    """It names no command that would be refused too: a version that is leaving cannot be aborted."""
    with pytest.raises(CommandRefused) as refused:
        accept(command, at(REQUESTED, *events))
    assert words in refused.value.do


def test_releasing_the_watched_version_is_refused_because_it_is_stable() -> None:
    """The refusal advised to end the watch first, and after that the release was refused too."""
    with pytest.raises(CommandRefused, match="m:v2 is stable already"):
        accept(START, at(REQUESTED, STEPPED, PROMOTED))


def test_a_restored_version_cannot_be_promoted() -> None:
    """It has no steps: it gets all traffic as soon as it is ready."""
    restored = REQUESTED.model_copy(update={"restore": e.Restore()})
    with pytest.raises(CommandRefused) as refused:
        accept(c.PromoteNow("ann"), at(restored))
    assert refused.value.do.startswith("wait until it is ready: then it takes all traffic")


def test_only_a_release_is_advised_when_nothing_can_be_restored() -> None:
    """The refusal must not name a command that cannot succeed."""
    with pytest.raises(CommandRefused, match="m:v2 was never promoted here") as refused:
        accept(c.Restore("m:v2", "ann"), at())
    assert refused.value.do == "release it: `kanaria release m:v2`"
    rolled_back = at(REQUESTED, STEPPED, PROMOTED, ROLLED_BACK, ENDED)
    with pytest.raises(CommandRefused, match="m:v2 is in quarantine") as refused:
        accept(c.Restore("m:v2", "ann"), rolled_back)
    assert refused.value.do == "if you still want m:v2: `kanaria retry m:v2` puts it on trial"


def test_the_first_stable_is_set_once() -> None:
    """Later versions become stable only by a release."""
    (event,) = accept(c.SetStable("m:v1", "ann"), Deployment())
    assert event == e.StableSet(at_s=100.0, tag="m:v1")
    assert accept(c.SetStable("m:v1", "ann"), at()) == ()
    with pytest.raises(CommandRefused, match="kanaria release m:v2"):
        accept(c.SetStable("m:v2", "ann"), at())


def test_a_plan_may_ask_for_a_second_person() -> None:
    """The person who released may not promote, end the watch or retry; anyone may stop the release or go back."""
    four_eyes = REQUESTED.model_copy(update={"spec": RolloutSpec(second_person=True)})
    other = e.ReleaseRequested(at_s=5, release=2, tag="m:v3", stable="m:v1", spec=RolloutSpec(), by="bob")
    aborted = (four_eyes, e.Aborted(at_s=3, release=1, reason="no", by="ann"), ENDED)
    again = c.StartRelease(tag="m:v2", spec=RolloutSpec(), by="ann", retry=True)
    for command, state in (
        (c.PromoteNow("ann"), at(four_eyes, STEPPED)),
        (c.PromoteNow("ANN"), at(four_eyes, STEPPED)),
        (c.PromoteNow("ann"), at(four_eyes, STEPPED, PROMOTED)),
        (again, at(four_eyes, STEPPED, ROLLED_BACK, ENDED)),
        (again, at(four_eyes, STEPPED, ROLLED_BACK, ENDED, other, e.Ended(at_s=6, release=2, outcome="aborted"))),
        # A later plan without the requirement does not lift it, whoever releases it.
        (c.PromoteNow("ann"), at(*aborted, REQUESTED, STEPPED)),
        (c.PromoteNow("bob"), at(*aborted, REQUESTED.model_copy(update={"by": "bob"}), STEPPED)),
    ):
        with pytest.raises(CommandRefused, match="by somebody else") as refused:
            accept(command, state)
        assert refused.value.saw == f"{command.by} released it"
        assert accept(replace(command, by="carl"), state)
    for own in (c.RollbackNow("ann"), c.Abort("ann"), c.Pause("ann")):
        assert accept(own, at(four_eyes, STEPPED))
    assert accept(c.PromoteNow("ann"), at(REQUESTED, STEPPED))


def test_a_promoted_version_needs_no_second_person_any_more() -> None:
    """Two people agreed to promote it, and that stays valid."""
    four_eyes = REQUESTED.model_copy(update={"spec": RolloutSpec(second_person=True)})
    promoted = at(four_eyes, STEPPED, PROMOTED, e.Ended(at_s=4, release=1, outcome="promoted"))
    assert promoted.needs_another == {}


def test_a_restore_does_not_end_the_watch_for_a_person_who_may_not_end_it() -> None:
    """Else an aborted restore would leave the promoted version unwatched, as if two people had agreed."""
    four_eyes = REQUESTED.model_copy(update={"spec": RolloutSpec(second_person=True)})
    before = e.StableSet(at_s=0, tag="m:v3"), e.StableSet(at_s=0, tag="m:v1")
    watched, watched_by_two = (fold((*before, requested, STEPPED, PROMOTED)) for requested in (REQUESTED, four_eyes))
    for name in ("ann", "ANN"):
        with pytest.raises(CommandRefused, match="taken out of the watch by somebody else"):
            accept(c.Restore("m:v3", name), watched_by_two)
    with pytest.raises(CommandRefused, match="end the watch of m:v2, which your role does not allow") as refused:
        accept(c.Restore("m:v3", "rob", may_end_watch=False), watched)
    assert refused.value.do.startswith("`kanaria rollback` returns to m:v1 now, and then `kanaria restore m:v3`")
    assert accept(c.Restore("m:v3", "rob"), watched_by_two)
    assert accept(c.Restore("m:v3", "ann"), watched)
    for who in (c.Restore("m:v1", "ann"), c.Restore("m:v1", "rob", may_end_watch=False)):  # it is still running
        assert isinstance(accept(who, watched_by_two)[0], e.RolledBack)


@pytest.mark.parametrize("seen", [(1, "starting"), (2, "stepping"), (1, "watching")])
def test_the_expected_state_of_a_command_is_checked_when_it_is_executed(seen: tuple[int, str]) -> None:
    """It is compared with the loop's newest state, not with the last one that was shown."""
    known, promote = at(REQUESTED, STEPPED), c.PromoteNow("ann")
    for matching in ((1, "stepping"), (None, "stepping"), (1, None), (None, None)):
        assert c.ForWhatWasSeen(promote, *matching).for_now(known) == promote
    with pytest.raises(CommandRefused, match="moved on since you looked"):
        c.ForWhatWasSeen(promote, *seen).for_now(known)
