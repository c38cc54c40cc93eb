"""A canary's first minute with cold caches, and requests that hang: both are judged only when they mean something."""

from pathlib import Path

import pytest

from contract.http import ANSWER_TIMEOUT_S
from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.control.release_judge import replayed
from rollout.explain.timeline import Timeline, timeline
from rollout.explain.why import one_sentence, why
from rollout.fleet import Health
from rollout.judge import Pair
from rollout.ledger import events as e
from rollout.ledger.findings import DriftReport
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Release, fold
from rollout.spec import RolloutSpec
from rollout.ui.status import build_status
from tests.support.releases import DigitsVersion, DigitsWorld
from tests.support.world import Version, World

PLAN = RolloutSpec(soak=5, window=2, holdback=0, watch=4)  # steps and warm-up are those of every plan
UNWARMED = PLAN.model_copy(update={"warmup": 0.0})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ledger.db", rps=200.0, versions={"m:v1": Version(0.001), "m:v2": Version(0.001)})


def start(controller: Controller, spec: RolloutSpec = PLAN) -> None:
    controller.execute(c.StartRelease("m:v2", spec, "ann"))


def release_of(controller: Controller) -> Release:
    release = controller.snapshot.deployment.release
    assert release is not None
    return release


def live_until_warm(world: World, controller: Controller) -> None:
    """Live until the warm-up begins and ends."""
    while not release_of(controller).is_warming_up:
        world.live(controller, 0.5)
    while release_of(controller).is_warming_up:
        world.live(controller, 0.5)


def release_events(world: World) -> list[e.Event]:
    ledger = Ledger(world.path, read_only=True)
    try:
        return list(ledger.events(release=1))
    finally:
        ledger.close()


def story(world: World) -> Timeline:
    return timeline(release_events(world))


def weights(world: World) -> set[float]:
    return {100 if split.stable.tag == "m:v2" else split.canary_percent for split in world.router.history}


@pytest.mark.parametrize(
    ("spec", "outcome"), [(PLAN, "promoted"), (UNWARMED, "rolled_back")], ids=["warm-up", "no warm-up"]
)
def test_errors_during_the_warm_up_are_forgiven(
    world: World, controller: Controller, spec: RolloutSpec, outcome: str
) -> None:
    """5 % of its requests fail for its first 30 s; without a warm-up it is rolled back for this."""
    world.edit("m:v2", error_ratio=0.05)
    start(controller, spec)
    world.live(controller, 32)
    world.edit("m:v2", error_ratio=0.001)
    assert world.live_until_ended(controller) == outcome


@pytest.mark.parametrize(
    ("spec", "outcome"), [(PLAN, "promoted"), (UNWARMED, "rolled_back")], ids=["warm-up", "no warm-up"]
)
def test_a_cold_cache_is_forgiven(tmp_path: Path, spec: RolloutSpec, outcome: str) -> None:
    """Its first 3,000 answers take 1.5 times as long."""
    slow = DigitsVersion(median_ms=16.5)
    world = DigitsWorld(tmp_path / "ledger.db", rps=200.0, versions={"m:v1": DigitsVersion(), "m:v2": slow})
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 60)
    start(controller, spec)
    while world.counters["m:v2-process", "m:v2", "errors"].total < 3000 and release_of(controller).outcome is None:
        world.live(controller, 0.5)
    world.edit("m:v2", median_ms=11.0)
    assert world.live_until_ended(controller) == outcome
    controller.close()


def test_a_canary_that_stays_bad_is_rolled_back_from_the_shadow(world: World, controller: Controller) -> None:
    """It is judged as soon as it should be warm; no user got an answer from it, and it is in quarantine."""
    world.edit("m:v2", error_ratio=0.05)
    start(controller)
    live_until_warm(world, controller)
    assert world.live_until_ended(controller, limit_s=20) == "rolled_back"
    assert (release_of(controller).outcome_signal, weights(world)) == ("errors", {0})
    assert "m:v2" in controller.snapshot.deployment.quarantined
    assert story(world).steps[0].warmup_s == pytest.approx(PLAN.warmup)


def test_the_guard_does_not_count_requests_of_the_warm_up(world: World, controller: Controller) -> None:
    """The guard counts half a minute; nine of ten requests fail until the last second of the warm-up."""
    world.edit("m:v2", error_ratio=0.9)
    start(controller)
    while release_of(controller).warmed_s < PLAN.warmup - 1.5:
        world.live(controller, 0.5)
    world.edit("m:v2", error_ratio=0.001)
    assert world.live_until_ended(controller) == "promoted"


def test_a_controller_killed_in_the_warm_up_has_the_same_evidence(world: World, controller: Controller) -> None:
    """The next one continues the warm-up, and requests of the warm-up are evidence for neither."""
    world.edit("m:v2", error_ratio=0.05)
    start(controller)
    world.live(controller, 25)
    warmed_s = release_of(controller).warmed_s
    controller.close()
    world.pass_time(3)
    second = world.controller()
    world.live(second, 1)
    assert warmed_s < release_of(second).warmed_s < PLAN.warmup
    world.edit("m:v2", error_ratio=0.01)
    live_until_warm(world, second)
    world.live(second, 4)
    events = release_events(world)
    second.close()
    judge, release = replayed(events), fold(events).release
    (*_, last) = (event for event in events if isinstance(event, e.Ticked))
    assert judge is not None
    assert release is not None
    judgement = judge.judgement(release)
    assert judgement is not None
    assert judgement.signals == last.evidence.signals
    judged = [window.canary for window in last.windows if window.signal == "errors"]
    assert judgement.signals["errors"].canary.total < 10 * world.rps
    assert judgement.signals["errors"].canary.total >= sum(judged, Pair(0, 0)).total > 0


@pytest.mark.parametrize(
    "fault", [{"health": Health.DEAD, "has_crashed": True}, {"health": Health.UNREADY}, {"restarts": 2}]
)
def test_a_canary_that_dies_in_its_warm_up_is_not_quarantined(
    world: World, controller: Controller, fault: dict[str, object]
) -> None:
    """It cannot serve, whatever it would do when warm; it may be released again unchanged."""
    start(controller)
    world.live(controller, 20)
    world.edit("m:v2", **fault)
    assert world.live_until_ended(controller, limit_s=40) == "rolled_back"
    assert (release_of(controller).outcome_signal, release_of(controller).warmed_s < 40) == ("canary_down", True)
    assert not controller.snapshot.deployment.quarantined
    lines = [line for topic in why(story(world)).topics for line in topic.lines]
    assert any("It was only warming up, so m:v2 is not in quarantine" in line for line in lines)
    assert not any("retry" in line for line in lines)
    start(controller)


def test_a_rollback_by_a_person_in_the_warm_up_quarantines(world: World, controller: Controller) -> None:
    """A person knows more than a clock."""
    start(controller)
    world.live(controller, 20)
    controller.execute(c.RollbackNow("ann"))
    assert "m:v2" in controller.snapshot.deployment.quarantined


def test_drift_in_the_warm_up_does_not_roll_back(world: World, controller: Controller) -> None:
    """The report is kept."""
    report = DriftReport(state="drift", sentence="it drifted", rows=500, columns=3, drifted=(), look=1)
    start(controller, PLAN.model_copy(update={"on_drift": "rollback"}))
    world.live(controller, 20)
    controller.execute(c.ReportDrift("m:v2", report))
    assert release_of(controller).outcome is None
    assert story(world).drift == report
    live_until_warm(world, controller)
    controller.execute(c.ReportDrift("m:v2", report))
    assert release_of(controller).outcome_signal == "drift"


def test_a_warm_up_needs_requests(world: World, controller: Controller) -> None:
    """A canary without requests does not get warm; at the deadline of the step a person is asked."""
    world.rps = 0.0
    start(controller)
    world.live(controller, 300)
    assert release_of(controller).warmed_s == 0
    world.live(controller, PLAN.step_deadline)
    assert "no proof of safety in " in controller.snapshot.last_action
    world.rps = 200.0
    assert world.live_until_ended(controller) == "promoted"


def test_status_and_why_show_the_warm_up(world: World, controller: Controller) -> None:
    """They say how much of it is over, and that nothing is judged."""
    start(controller)
    while release_of(controller).warmed_s < 23:
        world.live(controller, 0.5)
    status = build_status("m", controller.snapshot, story(world))
    assert status.last_action.startswith("Hold: warming up, 2")
    assert status.release
    assert status.release.waits_for
    assert "its warm-up, 2" in status.release.waits_for
    assert "s of 60 s: nothing is judged yet" in status.release.waits_for
    assert status.release.eta_s == pytest.approx(37, abs=2)
    assert "waits for the end of its warm-up" in one_sentence(story(world))
    assert world.live_until_ended(controller) == "promoted"
    (shadow, *_) = (line for topic in why(story(world)).topics for line in topic.lines if line.startswith("Shadow: "))
    assert "including 60 s of warm-up, which was not judged" in shadow


@pytest.mark.parametrize("steps", [(5, 100), "auto"])
def test_without_a_shadow_there_is_no_warm_up(world: World, controller: Controller, steps: object) -> None:
    """Users would pay for it, so the first request is evidence."""
    start(controller, PLAN.model_copy(update={"steps": steps}))
    world.live(controller, 8)
    (first, *_) = story(world).steps
    assert first.canary.total > 0
    assert (first.warmup_s, release_of(controller).warmed_s) == (0, 0)


@pytest.mark.parametrize(
    ("spec", "harmed_at_most"),
    [(RolloutSpec(), 0), (PLAN, 0), (UNWARMED, 0), (RolloutSpec(steps=(1, 5, 25, 50, 100)), 40)],
    ids=["the default plan", "short steps", "short steps, no warm-up", "no shadow"],
)
def test_requests_that_hang_are_found_before_many_users_wait(
    tmp_path: Path, spec: RolloutSpec, harmed_at_most: int
) -> None:
    """2 % of 1,000 requests a second get no answer; they count when the gateway gives them up, 10 s later."""
    hanging = Version(error_ratio=0.001, hang_ratio=0.02)
    world = World(tmp_path / "ledger.db", rps=1000.0, versions={"m:v1": Version(0.001), "m:v2": hanging})
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 60)
    start(controller, spec)
    assert world.live_until_ended(controller) == "rolled_back"
    controller.close()
    assert world.hung <= harmed_at_most
    assert max(weights(world)) <= (5 if harmed_at_most else 0)


def test_the_shadow_lasts_until_its_own_timeouts_are_counted(world: World, controller: Controller) -> None:
    """With a short soak too: copies that still hang at its end would never be counted."""
    start(controller, UNWARMED)
    assert world.live_until_ended(controller) == "promoted"
    shadow = story(world).steps[0]
    assert shadow.until_s is not None
    assert shadow.until_s - shadow.from_s >= ANSWER_TIMEOUT_S + 3 * UNWARMED.window
