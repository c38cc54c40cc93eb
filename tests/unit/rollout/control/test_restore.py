"""`restore` brings a version back that was promoted before: all traffic at once, with preflight and watch, no steps."""

from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.alerts import Alert, objection
from rollout.control.controller import Controller
from rollout.control.preflight import Loss
from rollout.errors import CommandRefused, LedgerError
from rollout.explain.timeline import Timeline, timeline
from rollout.explain.why import one_sentence, why
from rollout.fleet import Backend, Health
from rollout.ledger.findings import DriftReport, PreflightResult
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Phase, Release
from rollout.spec import RiskBudget, RolloutSpec
from tests.support.killing import Killed, Killer
from tests.support.world import Version, World
from tests.unit.rollout.control.test_unwritten import impatient, locked

SPEC = RolloutSpec(
    steps=("shadow", 5, 100),
    soak=5,
    warmup=0,
    window=2,
    step_deadline=300,
    watch=20,
    risk_budget=RiskBudget(share=0.02, requests=10_000),
    startup_deadline=30,
    on_drift="rollback",
)
BACK = c.Restore("m:v1", "bob", "labels are wrong")
FOR_GOOD = c.Restore("m:v1", "bob", "labels are wrong", quarantine=True)
DRIFTED = DriftReport(state="drift", sentence="it drifted", columns=1, rows=900, drifted=(), look=1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ledger.db", versions={f"m:v{number}": Version() for number in (1, 2, 3)})


def promote(world: World, controller: Controller, tag: str = "m:v2", plan: RolloutSpec = SPEC) -> None:
    """Release `tag`; it has all the traffic, and is watched."""
    controller.execute(c.StartRelease(tag, plan, "ann"))
    while release(controller).phase is not Phase.STEPPING:
        world.live(controller, 0.5)
    controller.execute(c.PromoteNow("ann"))
    world.live(controller, 1)


def end_watch(world: World, controller: Controller) -> None:
    """A person ends the watch; the version before is stopped."""
    controller.execute(c.PromoteNow("ann"))
    world.live(controller, 2)


def release(controller: Controller) -> Release:
    found = controller.snapshot.deployment.release
    assert found is not None
    return found


def all_traffic_on(world: World) -> str:
    split = world.router.history[-1]
    assert split.canary_percent == 0
    return split.stable.tag


def story(world: World, number: int) -> Timeline:
    ledger = Ledger(world.path, read_only=True)
    try:
        return timeline(ledger.of_release(number))
    finally:
        ledger.close()


def words(told: Timeline) -> str:
    explained = why(told)
    return "\n".join((explained.verdict, *(line for topic in explained.topics for line in topic.lines)))


@pytest.fixture
def later(world: World, controller: Controller) -> Controller:
    """m:v2 was promoted, its watch is over, and m:v1 is stopped."""
    promote(world, controller)
    end_watch(world, controller)
    assert world.running() == ("m:v2",)
    return controller


def test_a_version_takes_all_traffic_as_soon_as_it_is_ready(world: World, later: Controller) -> None:
    """Until then the present one keeps all of it; there is no step between, and nothing is held back."""
    before = len(world.router.history)
    assert later.execute(BACK) == 2
    world.live(later, 1.5)
    assert all_traffic_on(world) == "m:v2"
    world.live(later, 1.5)
    assert all_traffic_on(world) == "m:v1"
    splits = world.router.history[before:]
    assert {(split.canary_percent, split.mirror) for split in splits} == {(0, False)}
    assert splits[-1].fallback is not None
    assert splits[-1].fallback.tag == "m:v2"


def test_what_it_replaced_stays_warm_for_the_watch_of_the_newest_plan(world: World, later: Controller) -> None:
    """The watch is measured, then the other version is stopped; it is in no quarantine."""
    later.execute(BACK)
    world.live(later, 10)
    assert (release(later).phase, set(world.running())) == (Phase.WATCHING, {"m:v1", "m:v2"})
    assert world.live_until_ended(later) == "promoted"
    world.live(later, 2)
    assert world.running() == ("m:v1",)
    assert later.snapshot.deployment.quarantined == {}
    assert later.snapshot.deployment.restorable == ("m:v2",)


def test_who_restored_what_and_why_is_told(world: World, later: Controller) -> None:
    """In one sentence, before and after; advice names the way back."""
    later.execute(BACK)
    assert "is brought back by bob and waits for its first ready answer" in one_sentence(story(world, 2))
    world.live_until_ended(later)
    told = story(world, 2)
    assert told.outcome == "restored"
    assert told.decisions[0].title == "restore of m:v1 in place of m:v2"
    sentence = one_sentence(told)
    assert "m:v1 was restored by bob in place of m:v2, 2.5 s after the command: labels are wrong" in sentence
    assert "No user's request reached it before it had all traffic." in words(told)
    assert "`kanaria restore m:v2`" in words(told)


def test_what_it_replaces_goes_into_quarantine_by_the_same_command(world: World, later: Controller) -> None:
    """Once the traffic has moved, not before: until then it is all there is."""
    later.execute(FOR_GOOD)
    assert later.snapshot.deployment.quarantined == {}
    world.live_until_ended(later)
    assert "labels are wrong" in later.snapshot.deployment.quarantined["m:v2"]
    with pytest.raises(CommandRefused, match="quarantine"):
        later.execute(c.StartRelease("m:v2", SPEC, "ann"))
    with pytest.raises(CommandRefused, match="quarantine"):
        later.execute(c.Restore("m:v2", "bob"))
    assert "m:v2 is in quarantine" in one_sentence(story(world, 2))


@pytest.mark.parametrize("quarantine", [False, True])
def test_during_the_watch_it_is_instant(world: World, controller: Controller, quarantine: bool) -> None:
    """The version before is still warm: the next beat moves all traffic. Quarantine only where it was asked for."""
    promote(world, controller)
    controller.execute(c.Restore("m:v1", "bob", "labels are wrong", quarantine=quarantine))
    controller.beat()
    assert all_traffic_on(world) == "m:v1"
    assert controller.snapshot.deployment.stable == "m:v1"
    assert ("m:v2" in controller.snapshot.deployment.quarantined) is quarantine
    told = words(story(world, 1))
    assert "already promoted by bob: m:v1 was restored: labels are wrong" in told
    assert ("`kanaria retry m:v2`" in told) is quarantine


def test_in_the_watch_it_also_works_while_the_ledger_cannot_be_written(world: World, controller: Controller) -> None:
    """It only returns to what was, as a rollback does."""
    promote(world, impatient(controller))
    with locked(world):
        controller.execute(BACK)
        world.live(controller, 1)
        assert all_traffic_on(world) == "m:v1"


def test_no_version_is_started_that_the_ledger_does_not_know_of(world: World, later: Controller) -> None:
    """Nobody would know after a crash why it runs."""
    with locked(world):
        with pytest.raises(LedgerError):
            impatient(later).execute(BACK)
        world.live(later, 4)
        assert (all_traffic_on(world), world.running()) == ("m:v2", ("m:v2",))


def test_a_version_from_before_the_one_before_ends_the_watch(world: World, controller: Controller) -> None:
    """v3 over v2 is bad, and so was v2: one command goes back to v1, and v3 serves until it is ready."""
    promote(world, controller)
    end_watch(world, controller)
    promote(world, controller, "m:v3")
    controller.execute(BACK)
    world.live(controller, 1)
    assert all_traffic_on(world) == "m:v3"
    world.live(controller, 3)
    assert all_traffic_on(world) == "m:v1"
    assert story(world, 2).ended_s is not None
    assert set(world.running()) == {"m:v1", "m:v3"}


def test_a_canary_that_is_leaving_answers_its_last_requests_first(world: World, controller: Controller) -> None:
    """Two changes of the split in a row would cut them off; a moment later the version is restored."""
    promote(world, controller)
    end_watch(world, controller)
    promote(world, controller, "m:v3")
    world.router.in_flight = {"m:v3": 5}
    controller.execute(c.RollbackNow("bob"))
    controller.beat()
    with pytest.raises(CommandRefused, match="m:v3 answers its last requests") as refused:
        controller.execute(BACK)
    assert "in some seconds" in refused.value.do
    world.router.in_flight = {}
    world.live(controller, 2)
    controller.execute(BACK)
    world.live(controller, 4)
    assert all_traffic_on(world) == "m:v1"


def test_a_rollback_in_its_watch_returns_to_what_it_replaced(world: World, later: Controller) -> None:
    """Also out of quarantine, because a person says so."""
    later.execute(FOR_GOOD)
    world.live(later, 5)
    with pytest.raises(CommandRefused) as refused:
        later.execute(c.Restore("m:v2", "bob"))
    assert "`kanaria rollback` returns to it" in refused.value.do
    later.execute(c.RollbackNow("bob"))
    later.beat()
    assert all_traffic_on(world) == "m:v2"
    assert list(later.snapshot.deployment.quarantined) == ["m:v1"]


def test_harm_in_its_watch_returns_to_what_it_replaced(world: World, later: Controller) -> None:
    """As in every watch."""
    later.execute(BACK)
    world.live(later, 5)
    world.edit("m:v1", error_ratio=0.5)
    assert world.live_until_ended(later) == "rolled_back"
    assert all_traffic_on(world) == "m:v2"


def test_nothing_but_a_person_goes_back_to_a_version_in_quarantine(world: World, later: Controller) -> None:
    """Not harm, not drift, not an alert: a person is asked."""
    later.execute(FOR_GOOD)
    world.live(later, 5)
    world.edit("m:v1", error_ratio=0.5)
    world.live(later, 60)
    assert all_traffic_on(world) == "m:v1"
    assert "`kanaria rollback` returns to it" in later.snapshot.last_action
    later.execute(c.ReportDrift("m:v1", DRIFTED))
    alert = Alert("Burns", "it burns", is_firing=True, asks_for_rollback=True, version="m:v1", began_s=None)
    assert "only a person" in str(objection(alert, later.snapshot.deployment, later.snapshot.health))
    world.live(later, 5)
    assert all_traffic_on(world) == "m:v1"


def test_one_that_does_not_start_leaves_the_traffic_where_it_is(world: World, later: Controller) -> None:
    """It was good once, so it is not in quarantine: the same command may try again."""
    world.edit("m:v1", starts_at_all=False)
    later.execute(BACK)
    assert world.live_until_ended(later) == "rolled_back"
    assert all_traffic_on(world) == "m:v2"
    assert later.snapshot.deployment.quarantined == {}
    told = words(story(world, 2))
    assert "m:v1 was not restored: m:v1 did not start: ImportError" in told
    assert "m:v2 keeps the traffic" in told
    assert "`kanaria restore m:v1`" in told
    world.edit("m:v1", starts_at_all=True, health=Health.ABSENT)
    later.execute(BACK)
    world.live(later, 4)
    assert all_traffic_on(world) == "m:v1"


def test_one_that_fails_its_preflight_gets_no_request(world: World, later: Controller) -> None:
    """Its files were changed since it was promoted."""

    class Fails:
        def losses(self, canary: str, stable: str) -> tuple[Loss, ...]:  # noqa: ARG002 - Protocol
            return ()

        def check(self, canary: Backend, stable: str, *_: object, **__: object) -> PreflightResult:  # noqa: ARG002 - Protocol
            return PreflightResult(("golden request 3: `label` is '8', expected '3'",), golden_requests=20)

    world.preflight = Fails()
    later.close()
    again = world.controller()
    try:
        again.execute(BACK)
        assert world.live_until_ended(again) == "rolled_back"
        assert release(again).outcome_signal == "preflight"
        assert {split.stable.tag for split in world.router.history[-2:]} == {"m:v2"}
        assert again.snapshot.deployment.quarantined == {}
    finally:
        again.close()


def test_a_person_may_restore_what_would_refuse_requests_of_todays_callers(world: World, later: Controller) -> None:
    """At 3 a.m. the older version may be the lesser harm: it is on record who said so, and what callers lose."""

    class Refuses:
        def losses(self, canary: str, stable: str) -> tuple[Loss, ...]:  # noqa: ARG002 - Protocol
            return ()

        def check(self, canary: Backend, stable: str, *_: object, **__: object) -> PreflightResult:  # noqa: ARG002 - Protocol
            return PreflightResult(("feature `age` may not be missing, with stable it may",), golden_requests=20)

    world.preflight = Refuses()
    later.close()
    again = world.controller()
    try:
        again.execute(BACK)
        assert world.live_until_ended(again) == "rolled_back"
        assert "`kanaria restore m:v1 --anyway`" in words(story(world, 2))
        again.execute(c.Restore("m:v1", "bob", "requests fail", anyway=True))
        world.live(again, 4)
        assert all_traffic_on(world) == "m:v1"
        told = story(world, 3)
        assert told.decisions[0].title == "restore of m:v1 in place of m:v2, whatever its preflight finds"
        assert "`age` may not be missing, with stable it may, which bob accepted." in words(told)
    finally:
        again.close()


def test_what_an_older_service_lacks_refuses_no_restore(world: World, later: Controller) -> None:
    """A newer version nearly always has a field more; a release of the older one would be refused for it."""

    class Lacks:
        def losses(self, canary: str, stable: str) -> tuple[Loss, ...]:  # noqa: ARG002 - Protocol
            return (Loss("/detect confidence", "answers of /detect lack `confidence`"),)

        def check(self, canary: Backend, stable: str, *_: object, **__: object) -> PreflightResult:  # noqa: ARG002 - Protocol
            return PreflightResult(allowed=("answers of /detect lack `confidence`",))

    world.preflight = Lacks()
    later.close()
    again = world.controller()
    try:
        again.execute(BACK)
        assert release(again).spec.may_break == ("/detect confidence",)
    finally:
        again.close()


def test_a_stable_version_that_is_dead_does_not_hold_it_up(world: World, later: Controller) -> None:
    """That is when it is needed most."""
    world.edit("m:v2", health=Health.DEAD, has_crashed=True)
    later.execute(BACK)
    world.live(later, 4)
    assert all_traffic_on(world) == "m:v1"


def test_it_may_be_stopped_while_it_starts(world: World, later: Controller) -> None:
    """`abort` leaves everything as it is."""
    later.execute(BACK)
    world.live(later, 1)
    later.execute(c.Abort("bob"))
    assert world.live_until_ended(later) == "aborted"
    assert (all_traffic_on(world), world.running()) == ("m:v2", ("m:v2",))
    assert "m:v1 was not restored by bob" in one_sentence(story(world, 2))


@pytest.mark.parametrize("command", [c.RollbackNow("ann"), c.Abort("ann")])
def test_after_the_watch_the_way_back_is_named(later: Controller, command: c.Command) -> None:
    """Command and tag, instead of "no release is running"."""
    with pytest.raises(CommandRefused, match="the watch of m:v2 is over") as refused:
        later.execute(command)
    assert "`kanaria restore m:v1`" in refused.value.do


def test_where_nothing_was_promoted_before_no_way_back_is_named(controller: Controller) -> None:
    """The first version has none before it."""
    with pytest.raises(CommandRefused, match="no release is running"):
        controller.execute(c.RollbackNow("ann"))


@pytest.mark.parametrize(
    ("tag", "what"),
    [
        ("m:v3", "m:v3 was never promoted here"),
        ("m:v2", "m:v2 is stable already"),
        ("m:v22", "there is no version m:v22; did you mean `m:v2`?"),
        ("other:v1", "there is no version other:v1"),
        ("", "there is no version "),
    ],
)
def test_what_cannot_be_restored_is_refused(world: World, later: Controller, tag: str, what: str) -> None:
    """The refusal names what can be."""
    with pytest.raises(CommandRefused) as refused:
        later.execute(c.Restore(tag, "bob"))
    assert refused.value.what == what
    assert "m:v1" in refused.value.do + refused.value.saw
    assert all_traffic_on(world) == "m:v2"


@pytest.mark.parametrize("tag", ["m:v1", "m:v2"])
def test_a_release_that_runs_must_end_first(world: World, later: Controller, tag: str) -> None:
    """Two commands are named: which one is for a person to say."""
    later.execute(c.StartRelease("m:v3", SPEC, "ann"))
    for seconds in (0, 5):
        world.live(later, seconds)
        with pytest.raises(CommandRefused, match="is running: it must end first") as refused:
            later.execute(c.Restore(tag, "bob"))
        assert "`kanaria rollback`" in refused.value.do
        assert ("then `kanaria restore m:v1` again" in refused.value.do) is (tag == "m:v1")


def test_a_canary_is_to_be_aborted_before_it_is_restored(world: World, later: Controller) -> None:
    """After the rollback that was advised, it was in quarantine, and its restore was refused."""
    later.execute(c.StartRelease("m:v1", SPEC, "ann"))
    with pytest.raises(CommandRefused, match="is running: it must end first") as refused:
        later.execute(c.Restore("m:v1", "bob"))
    assert refused.value.do == "`kanaria abort`, then `kanaria restore m:v1` again"
    later.execute(c.Abort("bob"))
    world.live(later, 5)
    later.execute(c.Restore("m:v1", "bob"))


def test_a_version_that_is_being_restored_is_waited_for(world: World, later: Controller) -> None:
    """Typed again, the command was refused with the advice to stop the restore, and to begin it once more."""
    later.execute(BACK)
    with pytest.raises(CommandRefused, match="m:v1 is being restored already") as refused:
        later.execute(BACK)
    assert refused.value.do.startswith("wait until it is ready: then it takes all traffic")


def test_without_a_stable_version_there_is_nothing_to_replace(world: World) -> None:
    """The first one comes with `kanaria up`."""
    empty = world.controller()
    try:
        with pytest.raises(CommandRefused) as refused:
            empty.execute(BACK)
        assert "`kanaria up m:v1`" in refused.value.do
    finally:
        empty.close()


def test_a_restored_version_is_released_and_tried_as_before(world: World, later: Controller) -> None:
    """It is no try of the two versions: evidence of earlier ones is carried on, and the next is the first."""
    later.execute(BACK)
    world.live_until_ended(later)
    assert later.snapshot.deployment.tried == {("m:v1", "m:v2"): 1}
    later.execute(c.StartRelease("m:v2", SPEC, "ann"))
    assert release(later).number == 3


@pytest.mark.exhaustive
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("is_warm", [True, False])
def test_killed_at_any_point_it_goes_on_where_it_was(tmp_path: Path, before: bool, is_warm: bool) -> None:
    """Dying before or after any write or act ends with all traffic on the restored version, and says so once."""
    for nth in range(1, 60):
        world = World(tmp_path / f"{nth}.db", versions={"m:v1": Version(), "m:v2": Version()})
        first = world.controller()
        first.execute(c.SetStable("m:v1", "ann"))
        world.live(first, 5)
        promote(world, first, plan=SPEC.model_copy(update={"watch": 4.0}))
        if not is_warm:
            end_watch(world, first)
        killer = Killer(nth, before)
        try:
            with killer.counting((first._ledger, "append"), (world.router, "apply"), (world, "stop")):
                first.execute(FOR_GOOD)
                world.live_until_ended(first)
        except Killed:
            pass
        else:
            assert nth > 5, "it must offer more points to die at"
            first.close()
            return
        first.close()
        world.pass_time(3)
        second = world.controller()
        if nth == 1 and before:
            second.execute(FOR_GOOD)  # it was never written down: its sender heard of no answer
        world.live_until_ended(second)
        world.live(second, 35)
        assert (all_traffic_on(world), world.running()) == ("m:v1", ("m:v1",)), f"killed at call {nth}"
        assert list(second.snapshot.deployment.quarantined) == ["m:v2"], f"killed at call {nth}"
        second.close()
    pytest.fail("it never got through without being killed")
