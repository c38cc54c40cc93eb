"""A promoted version is compared with the previous one, which keeps a share of traffic until the watch ends."""

from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.control.release_judge import replayed
from rollout.explain.timeline import Timeline, timeline
from rollout.explain.waiting import waiting
from rollout.explain.why import one_sentence, why
from rollout.fleet import Health
from rollout.judge import Pair
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Phase, Release, fold
from rollout.routers.router import Split
from rollout.spec import RolloutSpec
from rollout.ui.status import build_status
from tests.support.world import Version, World
from tests.unit.rollout.control.test_sticky_releases import ON_CANARY, StickyWorld, errors_only

PLAN = RolloutSpec(steps=(5, 50, 100), soak=5, window=2, step_deadline=300, watch=600, risk_budget=0.02)
ALONE = PLAN.model_copy(update={"holdback": 0.0})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ledger.db", versions={"m:v1": Version(0.001), "m:v2": Version(0.001)})


def release_of(controller: Controller) -> Release:
    release = controller.snapshot.deployment.release
    assert release is not None
    return release


def live_until_promoted(world: World, controller: Controller, spec: RolloutSpec = PLAN) -> None:
    controller.execute(c.StartRelease("m:v2", spec, "ann"))
    while release_of(controller).phase is not Phase.WATCHING:
        world.live(controller, 0.5)


def release_events(world: World) -> list[e.Event]:
    ledger = Ledger(world.path, read_only=True)
    try:
        return list(ledger.events(release=1))
    finally:
        ledger.close()


def story(world: World) -> Timeline:
    return timeline(release_events(world))


def splits(world: World) -> list[tuple[str, str | None, float]]:
    return [
        (split.stable.tag, split.canary and split.canary.tag, split.canary_percent) for split in world.router.history
    ]


def failures(world: World) -> int:
    return world.counters["m:v2-process", "m:v2", "errors"].bad


def test_a_version_proven_better_is_not_blamed_for_differing_in_the_watch(world: World, controller: Controller) -> None:
    """Labels proved it better in the shadow. In the watch there are no pairs, and its classes still differ grossly."""
    world.edit("m:v2", classes=(0.05, 0.05, 0.1, 0.8), differs_ratio=0.43, lost_ratio=0.05)
    live_until_promoted(world, controller, PLAN.model_copy(update={"steps": ("shadow", 5, 50, 100), "warmup": 0.0}))
    assert world.live_until_ended(controller, beat_s=PLAN.window) == "promoted"
    assert "proven better by labels: it differs in 4" in story(world).decisions[-2].reason


def test_the_previous_version_keeps_its_share_until_the_watch_ends(world: World, controller: Controller) -> None:
    """The new version becomes stable; the split of the last step stays, so no caller is moved back."""
    live_until_promoted(world, controller)
    world.live(controller, 20)
    assert splits(world)[2:] == [("m:v1", "m:v2", 5), ("m:v1", "m:v2", 50), ("m:v1", "m:v2", 95)]
    status = build_status("m", controller.snapshot, story(world))
    assert status.stable
    assert status.canary
    assert (status.stable.tag, status.stable.weight_percent) == ("m:v2", 95)
    assert (status.canary.tag, status.canary.weight_percent) == ("m:v1", 5)
    assert world.live_until_ended(controller, beat_s=PLAN.window) == "promoted"
    world.live(controller, 5)
    assert splits(world)[-1] == ("m:v2", None, 0)
    assert world.running() == ("m:v2",)


def test_the_last_step_and_the_watch_compare_with_the_previous_version(world: World, controller: Controller) -> None:
    """Every signal keeps its rule, in a new judge that begins with the watch."""
    live_until_promoted(world, controller)
    world.live(controller, 20)
    events = release_events(world)
    (promoted,) = [place for place, event in enumerate(events) if isinstance(event, e.Promoted)]
    *_, before = (event for event in events[:promoted] if isinstance(event, e.Ticked))
    first, *_ = (event for event in events[promoted:] if isinstance(event, e.Ticked))
    assert (before.weight_percent, first.weight_percent) == (95, 95)
    assert all(pair.total for window in before.windows if window.signal == "errors" for pair in (window.stable,))
    assert {"errors", "latency:250", "class:0"} <= set(first.evidence.signals)
    assert first.evidence.signals["errors"].canary.total < before.evidence.signals["errors"].canary.total


@pytest.mark.parametrize(
    ("spec", "outcome"), [(PLAN, "rolled_back"), (ALONE, "promoted")], ids=["holdback", "no holdback"]
)
def test_a_slowly_growing_fault_is_found_only_with_a_holdback(
    world: World, controller: Controller, spec: RolloutSpec, outcome: str
) -> None:
    """Errors grow from 0.1 to 5 % in 20 minutes after promotion. Compared with minutes ago this looks like drift."""
    live_until_promoted(world, controller, spec.model_copy(update={"watch": 1500.0}))
    before = failures(world)
    for step in range(1, 121):
        world.edit("m:v2", error_ratio=0.001 + 0.049 * step / 120)
        world.live(controller, 10, beat_s=PLAN.window)
        if release_of(controller).outcome == "rolled_back":
            break
    assert world.live_until_ended(controller, beat_s=PLAN.window) == outcome
    if outcome == "rolled_back":
        assert failures(world) - before < 800
        assert release_of(controller).outcome_signal == "errors"
        assert "already promoted" in one_sentence(story(world))


@pytest.mark.parametrize(
    ("fault", "signal"),
    [({"slow_ratio": 0.1}, "latency"), ({"error_ratio": 0.03}, "errors"), ({"error_ratio": 0.5}, "errors")],
)
def test_harm_of_any_kind_is_rolled_back_after_promotion(
    world: World, controller: Controller, fault: dict[str, object], signal: str
) -> None:
    """Traffic returns to the previous version, which is still in use."""
    live_until_promoted(world, controller)
    world.live(controller, 30)
    world.edit("m:v2", **fault)
    assert world.live_until_ended(controller) == "rolled_back"
    assert (release_of(controller).outcome_signal or "").partition(":")[0] == signal
    assert (controller.snapshot.deployment.stable, splits(world)[-1]) == ("m:v1", ("m:v1", None, 0))
    assert why(story(world)).topics


def test_a_failure_of_both_versions_rolls_back_neither(world: World, controller: Controller) -> None:
    """A dependency suddenly fails for a tenth of all requests."""
    live_until_promoted(world, controller)
    world.live(controller, 60)
    for tag in world.versions:
        world.edit(tag, error_ratio=0.1)
    assert world.live_until_ended(controller, beat_s=PLAN.window) == "promoted"


def test_a_shift_in_the_watch_that_is_left_to_a_person_holds(world: World, controller: Controller) -> None:
    """Nobody decides, so the previous version comes back at the deadline of a step."""
    live_until_promoted(world, controller)
    world.edit("m:v2", classes=(0.38, 0.25, 0.25, 0.12))
    world.live(controller, 150)
    assert "the plan leaves this to a person" in controller.snapshot.last_action
    assert world.live_until_ended(controller, beat_s=PLAN.window) == "rolled_back"
    assert release_of(controller).outcome_signal == "deadline"


def test_a_person_ends_the_watch_with_all_traffic_on_the_new_version(world: World, controller: Controller) -> None:
    """The previous version loses its share."""
    live_until_promoted(world, controller)
    controller.execute(c.PromoteNow("ann"))
    world.live(controller, 5)
    assert splits(world)[-1] == ("m:v2", None, 0)
    assert release_of(controller).phase is Phase.ENDED


def test_a_version_promoted_by_a_person_is_still_compared(world: World, controller: Controller) -> None:
    """Promoted at 5 %: the previous version keeps its share, and harm is found."""
    controller.execute(c.StartRelease("m:v2", PLAN, "ann"))
    world.live(controller, 5)
    controller.execute(c.PromoteNow("ann"))
    world.live(controller, 5)
    assert splits(world)[-1] == ("m:v1", "m:v2", 95)
    world.edit("m:v2", error_ratio=0.05)
    assert world.live_until_ended(controller) == "rolled_back"


def test_a_person_returns_to_the_previous_version(world: World, controller: Controller) -> None:
    """This works as in any watch."""
    live_until_promoted(world, controller)
    controller.execute(c.RollbackNow("ann"))
    world.live(controller, 5)
    assert (splits(world)[-1], world.running()) == (("m:v1", None, 0), ("m:v1",))


def test_a_controller_killed_in_the_watch_has_the_same_evidence(world: World, controller: Controller) -> None:
    """A replayed judge begins where the watch began, and the split stays."""
    world.edit("m:v2", error_ratio=0.004)
    live_until_promoted(world, controller)
    world.live(controller, 30)
    controller.close()
    changes = len(world.router.history)
    world.pass_time(3)
    second = world.controller()
    world.live(second, 30)
    second.close()
    assert len(world.router.history) == changes
    events = release_events(world)
    judge, release = replayed(events), fold(events).release
    *_, last = (event for event in events if isinstance(event, e.Ticked))
    assert judge
    assert release
    assert judge.judgement(release) == last.evidence


def test_the_previous_version_may_die_in_the_watch(world: World, controller: Controller) -> None:
    """The new version keeps its traffic, and its watch continues."""
    live_until_promoted(world, controller)
    world.edit("m:v1", health=Health.DEAD, has_crashed=True)
    world.live(controller, 30)
    assert release_of(controller).phase is Phase.WATCHING
    assert splits(world)[-1] == ("m:v1", "m:v2", 95)


def test_the_status_shows_the_held_back_share(world: World, controller: Controller) -> None:
    """It also shows the traffic share of the last step."""
    controller.execute(c.StartRelease("m:v2", PLAN, "ann"))
    while release_of(controller).weight_percent != 100:
        world.live(controller, 0.5)
    world.live(controller, 1)
    assert "has 95 % of the traffic (step 3 of 3)" in one_sentence(story(world))
    live = story(world)
    assert live.weights[-1][1:] == (95, False)
    while release_of(controller).phase is not Phase.WATCHING:
        world.live(controller, 0.5)
    wait = waiting(story(world), world.now_s)
    assert wait
    assert "m:v1 keeps 5 % of the traffic to compare with" in wait.text


def test_a_sticky_user_is_never_moved_back_and_counts_once_in_the_watch(tmp_path: Path) -> None:
    """The share grows to 95 % and then 100 %; a user whose requests fail is still one event."""
    world = StickyWorld(tmp_path / "ledger.db", versions={"m:v1": Version(), "m:v2": Version()})
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 30)
    live_until_promoted(world, controller, errors_only(PLAN, sticky="x-user-id", watch=120.0))
    world.broken = (ON_CANARY,)
    assert world.live_until_ended(controller) == "promoted"
    controller.close()
    assert {split.sticky for split in world.router.history if split.canary} == {"x-user-id"}
    shares = [100 if split.stable.tag == "m:v2" else split.canary_percent for split in world.router.history]
    assert shares == sorted(shares)
    promoted = next(event.at_s for event in release_events(world) if isinstance(event, e.Promoted))
    in_watch = [event for event in release_events(world) if isinstance(event, e.Ticked) and event.at_s > promoted]
    windows = [window for event in in_watch for window in event.windows]
    assert sum((w.canary for w in windows if w.signal == "affected_users"), Pair(0, 0)).bad == 1
    assert sum((w.canary for w in windows if w.signal == "errors"), Pair(0, 0)).bad > 10


def test_a_watch_without_a_holdback_has_all_traffic_on_the_new_version(world: World, controller: Controller) -> None:
    """The new version has all traffic from its last step on, and the previous one is its fallback."""
    live_until_promoted(world, controller, ALONE)
    world.live(controller, 5)
    newest: Split = world.router.history[-1]
    assert (newest.stable.tag, newest.canary, newest.fallback and newest.fallback.tag) == ("m:v2", None, "m:v1")
    assert [percent for _, _, percent in splits(world)][1:5] == [0, 5, 50, 100]
