"""`restore` returns all traffic at once to a version promoted earlier: with preflight and watch, without steps."""

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
from tests.unit.rollout.control.test_unwritten_decisions import impatient, locked

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
    """Release `tag` until it has all the traffic and is watched."""
    controller.execute(c.StartRelease(tag, plan, "ann"))
    while release(controller).phase is not Phase.STEPPING:
        world.live(controller, 0.5)
    controller.execute(c.PromoteNow("ann"))
    world.live(controller, 1)


def end_watch(world: World, controller: Controller) -> None:
    """A person ends the watch; the previous version is stopped."""
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


def text_of(told: Timeline) -> str:
    explained = why(told)
    return "\n".join((explained.verdict, *(line for topic in explained.topics for line in topic.lines)))


@pytest.fixture
def later(world: World, controller: Controller) -> Controller:
    """m:v2 was promoted, its watch is over, and m:v1 is stopped."""
    promote(world, controller)
    end_watch(world, controller)
    assert world.running() == ("m:v2",)
    return controller


def test_a_restored_version_gets_all_traffic_as_soon_as_it_is_ready(world: World, later: Controller) -> None:
    """Until then the current version keeps all of it; there is no step in between and no holdback."""
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


def test_the_replaced_version_keeps_running_for_the_watch_of_the_newest_plan(world: World, later: Controller) -> None:
    """The watch is measured, then the replaced version is stopped; it is not in quarantine."""
    later.execute(BACK)
    world.live(later, 10)
    assert (release(later).phase, set(world.running())) == (Phase.WATCHING, {"m:v1", "m:v2"})
    assert world.live_until_ended(later) == "promoted"
    world.live(later, 2)
    assert world.running() == ("m:v1",)
    assert later.snapshot.deployment.quarantined == {}
    assert later.snapshot.deployment.restorable == ("m:v2",)


def test_the_release_says_who_restored_what_and_why(world: World, later: Controller) -> None:
    """One sentence says it, before and after; the advice names the command to return."""
    later.execute(BACK)
    assert "is being restored by bob and waits for its first ready answer" in one_sentence(story(world, 2))
    world.live_until_ended(later)
    told = story(world, 2)
    assert told.outcome == "restored"
    assert told.decisions[0].title == "restore of m:v1 in place of m:v2"
    sentence = one_sentence(told)
    assert "m:v1 was restored by bob in place of m:v2, 2.5 s after the command: labels are wrong" in sentence
    assert "No user's request reached it before it had all traffic." in text_of(told)
    assert "`kanaria restore m:v2`" in text_of(told)


def test_the_same_command_can_quarantine_the_replaced_version(world: World, later: Controller) -> None:
    """It goes into quarantine after the traffic has moved; until then it is the only version that serves."""
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
def test_a_restore_during_the_watch_takes_effect_at_the_next_beat(
    world: World, controller: Controller, quarantine: bool
) -> None:
    """The previous version is still running. Only the option puts the other into quarantine."""
    promote(world, controller)
    controller.execute(c.Restore("m:v1", "bob", "labels are wrong", quarantine=quarantine))
    controller.beat()
    assert all_traffic_on(world) == "m:v1"
    assert controller.snapshot.deployment.stable == "m:v1"
    assert ("m:v2" in controller.snapshot.deployment.quarantined) is quarantine
    told = text_of(story(world, 1))
    assert "already promoted by bob: m:v1 was restored: labels are wrong" in told
    assert ("`kanaria retry m:v2`" in told) is quarantine


def test_a_restore_during_the_watch_works_while_the_ledger_is_locked(world: World, controller: Controller) -> None:
    """It returns to the previous state, as a rollback does."""
    promote(world, impatient(controller))
    with locked(world):
        controller.execute(BACK)
        world.live(controller, 1)
        assert all_traffic_on(world) == "m:v1"


def test_no_version_is_started_before_the_ledger_has_it(world: World, later: Controller) -> None:
    """After a crash it would be unknown why the version runs."""
    with locked(world):
        with pytest.raises(LedgerError):
            impatient(later).execute(BACK)
        world.live(later, 4)
        assert (all_traffic_on(world), world.running()) == ("m:v2", ("m:v2",))


def test_restoring_an_older_version_ends_the_watch(world: World, controller: Controller) -> None:
    """v3 is bad, and so was v2: one command returns to v1, and v3 serves until v1 is ready."""
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


def test_a_leaving_canary_answers_its_last_requests_before_a_restore(world: World, controller: Controller) -> None:
    """Two changes of the split in a row would cut them off; the restore is accepted a moment later."""
    promote(world, controller)
    end_watch(world, controller)
    promote(world, controller, "m:v3")
    world.router.in_flight = {"m:v3": 5}
    controller.execute(c.RollbackNow("bob"))
    controller.beat()
    with pytest.raises(CommandRefused, match="m:v3 is answering its last requests") as refused:
        controller.execute(BACK)
    assert "in a few seconds" in refused.value.do
    world.router.in_flight = {}
    world.live(controller, 2)
    controller.execute(BACK)
    world.live(controller, 4)
    assert all_traffic_on(world) == "m:v1"


def test_a_rollback_in_its_watch_returns_to_the_replaced_version(world: World, later: Controller) -> None:
    """This works even if that version is in quarantine, because a person commands it."""
    later.execute(FOR_GOOD)
    world.live(later, 5)
    with pytest.raises(CommandRefused) as refused:
        later.execute(c.Restore("m:v2", "bob"))
    assert "`kanaria rollback` returns to it" in refused.value.do
    later.execute(c.RollbackNow("bob"))
    later.beat()
    assert all_traffic_on(world) == "m:v2"
    assert list(later.snapshot.deployment.quarantined) == ["m:v1"]


def test_harm_in_its_watch_returns_to_the_replaced_version(world: World, later: Controller) -> None:
    """This is the rule of every watch."""
    later.execute(BACK)
    world.live(later, 5)
    world.edit("m:v1", error_ratio=0.5)
    assert world.live_until_ended(later) == "rolled_back"
    assert all_traffic_on(world) == "m:v2"


def test_only_a_person_returns_to_a_version_in_quarantine(world: World, later: Controller) -> None:
    """Harm, drift and alerts do not; a person is asked."""
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


def test_a_restored_version_that_does_not_start_gets_no_traffic(world: World, later: Controller) -> None:
    """It was good once, so it does not go into quarantine: the same command may be repeated."""
    world.edit("m:v1", starts_at_all=False)
    later.execute(BACK)
    assert world.live_until_ended(later) == "rolled_back"
    assert all_traffic_on(world) == "m:v2"
    assert later.snapshot.deployment.quarantined == {}
    told = text_of(story(world, 2))
    assert "m:v1 was not restored: m:v1 did not start: ImportError" in told
    assert "m:v2 keeps the traffic" in told
    assert "`kanaria restore m:v1`" in told
    world.edit("m:v1", starts_at_all=True, health=Health.ABSENT)
    later.execute(BACK)
    world.live(later, 4)
    assert all_traffic_on(world) == "m:v1"


def test_a_restored_version_that_fails_its_preflight_gets_no_request(world: World, later: Controller) -> None:
    """Its files were changed after its promotion."""

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


def test_a_person_may_restore_a_version_that_refuses_requests_of_todays_callers(
    world: World, later: Controller
) -> None:
    """In an incident the older version may be the lesser harm. The record says who decided it and what callers lose."""

    class Refuses:
        def losses(self, canary: str, stable: str) -> tuple[Loss, ...]:  # noqa: ARG002 - Protocol
            return ()

        def check(self, canary: Backend, stable: str, *_: object, **__: object) -> PreflightResult:  # noqa: ARG002 - Protocol
            return PreflightResult(("feature `age` may not be missing; on stable it may",), golden_requests=20)

    world.preflight = Refuses()
    later.close()
    again = world.controller()
    try:
        again.execute(BACK)
        assert world.live_until_ended(again) == "rolled_back"
        assert "`kanaria restore m:v1 --anyway`" in text_of(story(world, 2))
        again.execute(c.Restore("m:v1", "bob", "requests fail", anyway=True))
        world.live(again, 4)
        assert all_traffic_on(world) == "m:v1"
        told = story(world, 3)
        assert told.decisions[0].title == "restore of m:v1 in place of m:v2, whatever its preflight finds"
        assert "`age` may not be missing; on stable it may, which bob accepted." in text_of(told)
    finally:
        again.close()


def test_fields_that_an_older_service_lacks_do_not_refuse_a_restore(world: World, later: Controller) -> None:
    """A newer version nearly always has more fields; a release of the older one would be refused for it."""

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


def test_a_dead_stable_version_does_not_delay_a_restore(world: World, later: Controller) -> None:
    """A restore is needed most then."""
    world.edit("m:v2", health=Health.DEAD, has_crashed=True)
    later.execute(BACK)
    world.live(later, 4)
    assert all_traffic_on(world) == "m:v1"


def test_a_restore_may_be_aborted_while_the_version_starts(world: World, later: Controller) -> None:
    """`abort` leaves everything as it is."""
    later.execute(BACK)
    world.live(later, 1)
    later.execute(c.Abort("bob"))
    assert world.live_until_ended(later) == "aborted"
    assert (all_traffic_on(world), world.running()) == ("m:v2", ("m:v2",))
    assert "m:v1 was not restored by bob" in one_sentence(story(world, 2))


@pytest.mark.parametrize("command", [c.RollbackNow("ann"), c.Abort("ann")])
def test_after_the_watch_a_refused_rollback_names_the_restore(later: Controller, command: c.Command) -> None:
    """It gives command and tag, instead of "no release is running"."""
    with pytest.raises(CommandRefused, match="the watch of m:v2 is over") as refused:
        later.execute(command)
    assert "`kanaria restore m:v1`" in refused.value.do


def test_no_restore_is_advised_if_nothing_was_promoted_before(controller: Controller) -> None:
    """The first version has no predecessor."""
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
def test_a_version_that_cannot_be_restored_is_refused(world: World, later: Controller, tag: str, what: str) -> None:
    """The refusal names the versions that can be restored."""
    with pytest.raises(CommandRefused) as refused:
        later.execute(c.Restore(tag, "bob"))
    assert refused.value.what == what
    assert "m:v1" in refused.value.do + refused.value.saw
    assert all_traffic_on(world) == "m:v2"


@pytest.mark.parametrize("tag", ["m:v1", "m:v2"])
def test_a_restore_is_refused_while_a_release_runs(world: World, later: Controller, tag: str) -> None:
    """The refusal names two commands; a person chooses one."""
    later.execute(c.StartRelease("m:v3", SPEC, "ann"))
    for seconds in (0, 5):
        world.live(later, seconds)
        with pytest.raises(CommandRefused, match="is running: it must end first") as refused:
            later.execute(c.Restore(tag, "bob"))
        assert "`kanaria rollback`" in refused.value.do
        assert ("then `kanaria restore m:v1` again" in refused.value.do) is (tag == "m:v1")


def test_restoring_the_canary_advises_to_abort_first(world: World, later: Controller) -> None:
    """A rollback was advised; it put the version into quarantine, and the restore was refused."""
    later.execute(c.StartRelease("m:v1", SPEC, "ann"))
    with pytest.raises(CommandRefused, match="is running: it must end first") as refused:
        later.execute(c.Restore("m:v1", "bob"))
    assert refused.value.do == "`kanaria abort`, then `kanaria restore m:v1` again"
    later.execute(c.Abort("bob"))
    world.live(later, 5)
    later.execute(c.Restore("m:v1", "bob"))


def test_a_repeated_restore_advises_to_wait(world: World, later: Controller) -> None:
    """The refusal advised to stop the restore and to start it again."""
    later.execute(BACK)
    with pytest.raises(CommandRefused, match="m:v1 is being restored already") as refused:
        later.execute(BACK)
    assert refused.value.do.startswith("wait until it is ready: then it takes all traffic")


def test_a_restore_without_a_stable_version_is_refused(world: World) -> None:
    """The first version comes with `kanaria up`."""
    empty = world.controller()
    try:
        with pytest.raises(CommandRefused) as refused:
            empty.execute(BACK)
        assert "`kanaria up m:v1`" in refused.value.do
    finally:
        empty.close()


def test_a_restore_does_not_count_as_a_try(world: World, later: Controller) -> None:
    """Evidence of earlier tries is still carried, and the next release is the first try."""
    later.execute(BACK)
    world.live_until_ended(later)
    assert later.snapshot.deployment.tried == {("m:v1", "m:v2"): 1}
    later.execute(c.StartRelease("m:v2", SPEC, "ann"))
    assert release(later).number == 3


@pytest.mark.exhaustive
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("is_warm", [True, False])
def test_a_controller_killed_at_any_point_completes_the_restore(tmp_path: Path, before: bool, is_warm: bool) -> None:
    """A kill before or after any write or action ends with all traffic on the restored version, recorded once."""
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
            assert nth > 5, "the restore must have more calls to be killed at"
            first.close()
            return
        first.close()
        world.pass_time(3)
        second = world.controller()
        if nth == 1 and before:
            second.execute(FOR_GOOD)  # the command was not written, and its sender got no answer
        world.live_until_ended(second)
        world.live(second, 35)
        assert (all_traffic_on(world), world.running()) == ("m:v1", ("m:v1",)), f"killed at call {nth}"
        assert list(second.snapshot.deployment.quarantined) == ["m:v2"], f"killed at call {nth}"
        second.close()
    pytest.fail("the restore never ended without a kill")
