"""The control loop in a small simulated world: good and bad versions, outages, and kills at any point."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from contract.errors import KanariaError
from rollout.control import commands as c
from rollout.control.controller import SILENCED_AFTER_S, Controller
from rollout.control.timing import BEAT_S
from rollout.explain.timeline import timeline
from rollout.fleet import CONTRACT, Health
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Phase
from rollout.routers.router import Split
from rollout.spec import RiskBudget, RolloutSpec
from tests.support.killing import Killed, Killer
from tests.support.world import Version, World

SPEC = RolloutSpec(
    steps=("shadow", 5, 25, 50, 100),
    soak=5,
    warmup=0,
    window=2,
    step_deadline=300,
    holdback=0,
    watch=20,
    risk_budget=0.02,
    startup_deadline=30,
)
OTHER = replace(CONTRACT, idle_s=8.0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ledger.db", versions={"m:v1": Version(), "m:v2": Version()})


def start(controller: Controller, spec: RolloutSpec = SPEC) -> None:
    controller.execute(c.StartRelease("m:v2", spec, "ann"))


def events(world: World) -> list[e.Event]:
    ledger = Ledger(world.path, read_only=True)
    try:
        return list(ledger.events())
    finally:
        ledger.close()


def outcome(world: World) -> e.RolledBack:
    (event,) = [event for event in events(world) if isinstance(event, e.RolledBack)]
    return event


def weights(world: World) -> list[float]:
    return [100 if split.stable.tag == "m:v2" else split.canary_percent for split in world.router.history]


def test_a_good_version_earns_its_traffic_and_is_promoted(world: World, controller: Controller) -> None:
    """Shadow, every step in order, promotion; after the watch the old version is stopped."""
    start(controller)
    assert world.live_until_ended(controller) == "promoted"
    steps = [event for event in events(world) if isinstance(event, e.StepEntered)]
    assert [(step.weight_percent, step.mirror) for step in steps] == [
        (0, True),
        (5, False),
        (25, False),
        (50, False),
        (100, False),
    ]
    world.live(controller, 5)
    assert (world.running(), controller.snapshot.deployment.stable) == (("m:v2",), "m:v2")


def test_an_erroneous_version_is_rolled_back_on_its_errors(world: World, controller: Controller) -> None:
    """With 5 % errors all traffic returns to stable, and the reason names the signal."""
    world.edit("m:v2", error_ratio=0.05)
    start(controller, SPEC.model_copy(update={"steps": (5, 25, 50, 100)}))
    assert world.live_until_ended(controller) == "rolled_back"
    assert outcome(world).signal == "errors"
    assert (weights(world)[-1], world.running()) == (0, ("m:v1",))


def test_a_silently_wrong_version_is_rolled_back_on_its_predictions(world: World, controller: Controller) -> None:
    """It answers 200 and fast, but never predicts the last class."""
    world.edit("m:v2", classes=(0.34, 0.33, 0.33, 0.0))
    start(controller)
    assert world.live_until_ended(controller) == "rolled_back"
    assert outcome(world).signal.startswith("class:")


def test_a_slow_version_is_rolled_back_on_its_latency(world: World, controller: Controller) -> None:
    """A third of its answers exceed the bound."""
    world.edit("m:v2", slow_ratio=0.3)
    start(controller)
    assert world.live_until_ended(controller) == "rolled_back"
    assert outcome(world).signal.startswith("latency:")


def test_a_version_that_dies_is_rolled_back_although_no_user_saw_an_error(world: World, controller: Controller) -> None:
    """Stable answered in its place, so its counts look clean; the reason is that it died."""
    start(controller)
    world.live(controller, 30)
    world.edit("m:v2", health=Health.DEAD, has_crashed=True)
    assert world.live_until_ended(controller) == "rolled_back"
    assert outcome(world).signal == "canary_down"


def test_a_version_that_does_not_start_never_gets_a_request(world: World, controller: Controller) -> None:
    """Its last output is the reason, and no split ever gave it weight."""
    world.edit("m:v2", starts_at_all=False)
    start(controller)
    assert world.live_until_ended(controller) == "rolled_back"
    assert "ImportError" in outcome(world).reason
    assert set(weights(world)) == {0}


def test_making_the_environment_is_not_part_of_the_startup_deadline(world: World, controller: Controller) -> None:
    """Ten minutes of downloads, then 20 of the 30 s allowed: it is released. A version that loads too long is not."""
    world.edit("m:v2", prepare_s=600.0, start_s=20.0)
    start(controller)
    world.live(controller, 500)
    assert "Downloading torch" in controller.snapshot.last_action
    assert controller.snapshot.preparing == {"m:v2": "Downloading torch"}
    assert world.live_until_ended(controller) == "promoted"


def test_the_startup_deadline_begins_when_the_environment_is_ready(world: World, controller: Controller) -> None:
    """A version that then loads for too long is given up."""
    world.edit("m:v2", prepare_s=100.0, start_s=600.0)
    start(controller)
    world.live(controller, 120)
    assert controller.snapshot.deployment.active
    world.live(controller, 20)
    assert (outcome(world).signal, "was not ready after 30 s" in outcome(world).reason) == ("startup", True)


def test_no_traffic_holds_until_the_deadline_decides(world: World, controller: Controller) -> None:
    """No data is never a pass."""
    world.rps = 0.0
    start(controller, SPEC.model_copy(update={"on_deadline": "rollback"}))
    world.live(controller, 200)
    assert controller.snapshot.deployment.active
    assert controller.snapshot.deployment.active.phase is Phase.STEPPING
    assert world.live_until_ended(controller) == "rolled_back"
    assert outcome(world).signal == "deadline"


def test_an_unreachable_metric_store_holds_the_weight_until_it_returns(world: World, controller: Controller) -> None:
    """A minute without numbers neither promotes nor rolls back, and the ledger has it."""
    start(controller)
    world.live(controller, 20)
    before = weights(world)
    world.is_source_up = False
    world.live(controller, 60)
    assert weights(world) == before
    world.is_source_up = True
    assert world.live_until_ended(controller) == "promoted"
    topics = [event.topic for event in events(world) if isinstance(event, e.Noted)]
    assert topics == ["source_unreachable", "source_back"]


def test_a_weight_that_the_router_refuses_is_tried_again(world: World, controller: Controller) -> None:
    """The decision stays in the ledger; the weight follows as soon as the gateway accepts it."""
    world.edit("m:v2", error_ratio=0.05)
    start(controller, SPEC.model_copy(update={"steps": (5, 25, 50, 100)}))
    world.live(controller, 6)
    world.router.refusals = ["no"] * 5
    assert world.live_until_ended(controller) == "rolled_back"
    assert weights(world)[-1] == 0
    topics = [event.topic for event in events(world) if isinstance(event, e.Noted)]
    assert topics.count("router_refused") == 1, "the reason is noted once, not at each beat"


@pytest.mark.parametrize("is_stable_ready", [True, False])
def test_a_rolled_back_version_is_suspended_where_the_router_cannot_remove_it(
    world: World, controller: Controller, is_stable_ready: bool
) -> None:
    """With a read-only disk it kept its traffic until a person came. It keeps it only while stable is not ready."""
    start(controller, SPEC.model_copy(update={"steps": (50, 100)}))
    world.live(controller, 4)
    world.edit("m:v2", error_ratio=0.5)
    world.router.refusals = ["the disk can only be read"] * 10_000
    while not any(isinstance(event, e.RolledBack) for event in events(world)):
        world.live(controller, BEAT_S)
    if not is_stable_ready:
        world.edit("m:v1", health=Health.UNREADY)
    world.live(controller, SILENCED_AFTER_S / 2)
    assert not world.versions["m:v2"].hangs, "the router may accept the split a moment later"
    world.live(controller, SILENCED_AFTER_S * 2)
    assert world.versions["m:v2"].hangs is is_stable_ready
    world.edit("m:v2", hangs=False)
    world.live(controller, 60)
    assert world.versions["m:v2"].hangs is is_stable_ready, "suspended again after the keeper restarted its process"
    world.router.refusals.clear()
    world.edit("m:v1", health=Health.READY)
    assert world.live_until_ended(controller) == "rolled_back"
    assert weights(world)[-1] == 0
    topics = [event.topic for event in events(world) if isinstance(event, e.Noted)]
    assert topics.count("suspended") == int(is_stable_ready)


def test_a_version_is_suspended_only_if_the_split_without_it_was_refused(world: World, controller: Controller) -> None:
    """Minutes of refusing a step up prove nothing about the rollback after it, which may be accepted at once."""
    start(controller, SPEC.model_copy(update={"steps": (50, 100), "soak": 60}))
    world.live(controller, 4)
    world.router.refusals = ["no"] * 10_000
    world.edit("m:v1", service=OTHER)  # this changes the gateway's split
    world.live(controller, 60)
    controller.execute(c.RollbackNow("ann", "looks wrong"))
    world.live(controller, SILENCED_AFTER_S / 2)
    assert not world.versions["m:v2"].hangs
    world.live(controller, SILENCED_AFTER_S)
    assert world.versions["m:v2"].hangs


def test_a_version_out_of_the_split_may_finish_its_last_requests(world: World, controller: Controller) -> None:
    """They were cut off when a later split, with other addresses of stable, was refused."""
    start(controller, SPEC.model_copy(update={"steps": (50, 100), "soak": 60}))
    world.live(controller, 4)
    world.router.in_flight = {"m:v2": 3}
    controller.execute(c.RollbackNow("ann", "looks wrong"))
    world.live(controller, 1)
    assert weights(world)[-1] == 0
    world.router.refusals = ["no"] * 10_000
    world.edit("m:v1", service=OTHER)
    world.live(controller, SILENCED_AFTER_S * 3)
    assert not world.versions["m:v2"].hangs


def test_a_version_with_all_traffic_is_not_suspended(world: World, controller: Controller) -> None:
    """The split in force does not contain stable, so no version would answer."""
    start(controller, SPEC.model_copy(update={"steps": (50, 100), "soak": 60}))
    world.live(controller, 4)
    canary = world.router.history[-1].canary
    assert canary
    world.router.history.append(Split(canary))
    world.router.refusals = ["no"] * 10_000
    controller.execute(c.RollbackNow("ann", "looks wrong"))
    world.live(controller, SILENCED_AFTER_S * 3)
    assert not world.versions["m:v2"].hangs


def test_a_paused_release_keeps_its_weight_and_continues_after_resume(world: World, controller: Controller) -> None:
    """A pause keeps the weight for as long as a person wants."""
    start(controller)
    world.live(controller, 15)
    controller.execute(c.Pause("ann"))
    before = weights(world)
    world.live(controller, 400)
    assert weights(world) == before
    controller.execute(c.Resume("ann"))
    assert world.live_until_ended(controller) == "promoted"


def test_rollback_after_promotion_returns_to_the_warm_version(world: World, controller: Controller) -> None:
    """The old version is still running, so users notice nothing."""
    start(controller)
    while controller.snapshot.deployment.stable != "m:v2":
        world.live(controller, 1)
    controller.execute(c.RollbackNow("ann"))
    assert world.live_until_ended(controller) == "rolled_back"
    assert (controller.snapshot.deployment.stable, world.router.history[-1].stable.tag) == ("m:v1", "m:v1")


def test_the_shadow_ends_only_after_answers_were_compared(world: World, controller: Controller) -> None:
    """Requests without errors are not enough: users get no answers that were not compared with stable's."""
    world.is_compared = False
    start(controller)
    world.live(controller, 60)
    judgement = controller.snapshot.judgement
    assert judgement
    assert judgement.reason == "no data: disagreement (never seen)"
    assert weights(world)[-1] == 0
    world.is_compared = True
    assert world.live_until_ended(controller) == "promoted"


def test_harm_that_begins_after_promotion_is_rolled_back(world: World, controller: Controller) -> None:
    """Stable has no traffic to compare with; its earlier failures are known and in the ledger."""
    world.edit("m:v1", error_ratio=0.005)
    world.edit("m:v2", error_ratio=0.005)
    start(controller, SPEC.model_copy(update={"watch": 200, "risk_budget": RiskBudget(share=0.05)}))
    while controller.snapshot.deployment.stable != "m:v2":
        world.live(controller, 1)
    world.live(controller, 20)
    controller.close()
    world.edit("m:v2", error_ratio=0.25)
    again = world.controller()
    assert world.live_until_ended(again) == "rolled_back"
    again.close()
    assert outcome(world).signal == "watched_errors"
    assert "are allowed; a harmless canary shows this" in outcome(world).reason
    story = timeline([event for event in events(world) if event.release == 1])
    assert story.failed_signal is not None
    failed, since_then = story.failed_signal.judged.canary
    assert failed / since_then == pytest.approx(0.25, abs=0.05)
    assert story.canary_requests > 20 * world.rps + since_then


def test_a_version_is_stopped_only_after_its_last_request(world: World, controller: Controller) -> None:
    """In-flight requests drain before the process ends."""
    start(controller)
    world.live(controller, 15)
    world.router.in_flight["m:v2"] = 3
    controller.execute(c.Abort("ann"))
    world.live(controller, 5)
    assert "m:v2" in world.running()
    world.router.in_flight["m:v2"] = 0
    world.live(controller, 2)
    assert "m:v2" not in world.running()


def test_automatic_steps_at_most_double_and_never_stop_between_50_and_100(world: World, controller: Controller) -> None:
    """`steps: auto` is the fastest ramp that keeps the risk budget."""
    start(controller, SPEC.model_copy(update={"steps": "auto"}))
    assert world.live_until_ended(controller) == "promoted"
    ramp = [event.weight_percent for event in events(world) if isinstance(event, e.StepEntered)]
    assert (ramp[0], ramp[-2:]) == (1, [50, 100])
    assert all(later <= 2 * earlier for earlier, later in pairwise(ramp))


def test_counting_begins_when_a_weight_comes_into_force(world: World, controller: Controller) -> None:
    """The first window of a step or watch begins when the gateway has the weight, not a beat later."""
    start(controller)
    assert world.live_until_ended(controller) == "promoted"
    story = [event for event in events(world) if isinstance(event, e.Applied | e.Ticked)]
    steps = [(old, new) for old, new in pairwise(story) if isinstance(old, e.Applied) and isinstance(new, e.Ticked)]
    assert len(steps) == len(SPEC.steps) + 1
    assert all(new.at_s - new.window_s == old.at_s for old, new in steps)


def test_every_weight_was_decided_before_it_was_in_force(world: World, controller: Controller) -> None:
    """The ledger records a weight before the gateway gets it."""
    start(controller)
    world.live_until_ended(controller)
    decided = {0}
    for event in events(world):
        if isinstance(event, e.StepEntered):
            decided.add(event.weight_percent)
        elif isinstance(event, e.Applied):
            assert event.weight_percent in decided


@pytest.mark.exhaustive
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("error_ratio", [0.0, 0.06])
def test_a_controller_killed_at_any_point_continues_where_it_was(
    tmp_path: Path, before: bool, error_ratio: float
) -> None:
    """A kill before or after any write or action of a release changes neither the outcome nor the evidence."""
    expected = "rolled_back" if error_ratio else "promoted"
    for nth in range(1, 200):
        path = tmp_path / f"{nth}.db"
        world = World(path, versions={"m:v1": Version(), "m:v2": Version(error_ratio=error_ratio)})
        first = world.controller()
        first.execute(c.SetStable("m:v1", "ann"))
        world.live(first, 20)
        start(first, SPEC.model_copy(update={"steps": (5, 50, 100), "watch": 4}))
        killer = Killer(nth, before)
        try:
            with killer.counting((first._ledger, "append"), (world.router, "apply"), (world, "stop")):
                world.live_until_ended(first)
        except Killed:
            pass
        else:
            assert nth > 10, "the release must have more calls to be killed at"
            first.close()
            return
        first.close()
        world.pass_time(3)
        second = world.controller()
        assert world.live_until_ended(second) == expected, f"killed at call {nth}"
        counted = sum(
            window.canary.total
            for event in events(world)
            if isinstance(event, e.Ticked)
            for window in event.windows
            if window.signal == "errors"
        )
        assert counted <= world.counters["m:v2-process", "m:v2", "errors"].total, f"killed at call {nth}"
        second.close()
    pytest.fail("the release never ended without a kill")


def test_an_unreachable_fleet_does_not_end_the_loop(world: World, controller: Controller) -> None:
    """The fleet does not answer: whatever the type of the error, the loop asks again."""
    controller.close()
    asked, start_version = [], world.start

    def refuse_twice(tag: str) -> None:
        asked.append(tag)
        if len(asked) <= 2:
            raise KanariaError("the stack is not running", saw="no socket", do="start it with `kanaria up`")
        start_version(tag)
        again.stop()

    world.start = refuse_twice  # type: ignore[method-assign]
    again = world.unstarted_controller()
    again.run()
    assert len(asked) == 3


def test_an_idle_controller_waits_longer_between_beats(world: World, controller: Controller) -> None:
    """It waits longer only without a release and with all versions ready; otherwise it beats twice a second."""
    turn, waits = controller.turn, {"idle": list[float](), "unready": [], "releasing": []}
    script = iter(("idle", "unready", "releasing"))
    now = next(script)

    def pass_time(*, wait_s: float) -> None:
        nonlocal now
        waits[now].append(wait_s)
        world.pass_time(wait_s)
        turn(wait_s=0)
        if sum(waits[now]) > 20:
            now = next(script, "")
            world.edit("m:v1", health=Health.UNREADY if now == "unready" else Health.READY)
            if now == "releasing":
                start(controller)
            if not now:
                controller.stop()

    controller.turn = pass_time  # type: ignore[method-assign]
    controller.run()
    assert max(waits["idle"]) == 2
    # The first wait began before the controller knew the state of the versions.
    assert max(waits["unready"][1:]) == max(waits["releasing"][1:]) == 0.5
