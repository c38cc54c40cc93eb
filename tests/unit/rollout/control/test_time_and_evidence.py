"""No data is never a pass, however much time goes by; and no clock that is set decides anything."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.alerts import LOOKS_BACK_S, Alert, objection
from rollout.control.controller import Controller
from rollout.control.decide import Hold
from rollout.explain.timeline import timeline
from rollout.explain.why import why
from rollout.fleet import Health
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Phase
from rollout.spec import RolloutSpec
from tests.support.world import Version, World

HOUR_S = 3600.0
SPEC = RolloutSpec(
    steps=(5, 25, 50, 100),
    soak=5,
    warmup=0,
    window=2,
    step_deadline=300,
    holdback=0,
    watch=60,
    risk_budget=0.02,
    startup_deadline=30,
    evidence_deadline=40,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ledger.db", versions={"m:v1": Version(), "m:v2": Version()})


def events(world: World) -> list[e.Event]:
    ledger = Ledger(world.path, read_only=True)
    try:
        return list(ledger.events())
    finally:
        ledger.close()


def notes(world: World, topic: str) -> list[str]:
    return [event.text for event in events(world) if isinstance(event, e.Noted) and event.topic == topic]


def phase(controller: Controller) -> Phase | None:
    release = controller.snapshot.deployment.release
    return release.phase if release else None


def weights(world: World) -> list[float]:
    """Every share of users' requests that the canary had."""
    return [100 if split.stable.tag == "m:v2" else split.canary_percent for split in world.router.history]


def start(controller: Controller, **more: object) -> None:
    controller.execute(c.StartRelease("m:v2", SPEC.model_copy(update=more), "ann"))


def live_until(world: World, controller: Controller, percent: float) -> None:
    """Live until the canary has this weight and some of its requests were counted."""
    while weights(world)[-1] != percent:
        world.live(controller, 0.5)
    world.live(controller, 3)


def live_long(world: World, controller: Controller, seconds: float) -> None:
    """Live on for minutes; after some seconds only readings can change anything, so beats between them are left out."""
    world.live(controller, 10)
    world.live(controller, seconds - 10, beat_s=SPEC.window)


def live_until_promoted(world: World, controller: Controller) -> None:
    while phase(controller) is not Phase.WATCHING:
        world.live(controller, 0.5)


# ---- the watch


def no_metrics(world: World, *, is_on: bool) -> None:
    world.is_source_up = is_on


def no_traffic(world: World, *, is_on: bool) -> None:
    world.rps = 100.0 if is_on else 0.0


@pytest.mark.parametrize("switch", [no_metrics, no_traffic])
def test_a_watch_in_which_nothing_is_counted_does_not_end(world: World, controller: Controller, switch) -> None:  # type: ignore[no-untyped-def]
    """A bad version would be permanent, and the good one stopped. A person is asked, and the watch goes on later."""
    start(controller, watch=200.0)
    live_until_promoted(world, controller)
    world.live(controller, 12)
    switch(world, is_on=False)
    live_long(world, controller, 1000)
    assert (phase(controller), world.running()) == (Phase.WATCHING, ("m:v1", "m:v2"))
    asked = controller._action
    assert isinstance(asked, Hold)
    assert asked.needs_person
    assert re.search("the watch is not over: only 1[0-2] s of 200 s were measured", asked.reason)
    switch(world, is_on=True)
    world.live(controller, 100)
    assert phase(controller) is Phase.WATCHING
    assert world.live_until_ended(controller, limit_s=100) == "promoted"


def test_errors_that_nobody_could_read_in_the_watch_are_found_afterwards(world: World, controller: Controller) -> None:
    """60 % of the requests fail while the metric store is away, for ten times the watch."""
    start(controller)
    live_until_promoted(world, controller)
    world.is_source_up = False
    world.edit("m:v2", error_ratio=0.6)
    live_long(world, controller, 10 * SPEC.watch)
    world.is_source_up = True
    assert world.live_until_ended(controller, limit_s=30) == "rolled_back"


def test_one_window_after_a_long_silence_does_not_end_the_watch(world: World, controller: Controller) -> None:
    """It holds all that was counted in between, but says little about each moment of it."""
    start(controller, watch=600.0)
    live_until_promoted(world, controller)
    world.is_source_up = False
    live_long(world, controller, 900)
    world.is_source_up = True
    world.live(controller, 10)
    assert phase(controller) is Phase.WATCHING


def test_a_short_silence_only_makes_the_watch_longer(world: World, controller: Controller) -> None:
    """Nobody is asked about it."""
    start(controller)
    live_until_promoted(world, controller)
    world.rps = 0.0
    world.live(controller, 20)
    world.rps = 100.0
    asked = []
    while phase(controller) is Phase.WATCHING:
        asked.append(isinstance(controller._action, Hold) and controller._action.needs_person)
        world.live(controller, 0.5)
    assert not any(asked)
    assert world.live_until_ended(controller) == "promoted"


def test_a_watch_does_not_end_while_both_versions_are_down(world: World, controller: Controller) -> None:
    """There is nothing to go back to, and nothing that went well."""
    start(controller)
    live_until_promoted(world, controller)
    for tag in world.versions:
        world.edit(tag, health=Health.DEAD, has_crashed=True)
    live_long(world, controller, 10 * SPEC.watch)
    assert phase(controller) is Phase.WATCHING
    assert isinstance(controller._action, Hold)
    assert controller._action.needs_person


def test_a_controller_that_was_away_does_not_end_the_watch(world: World, controller: Controller) -> None:
    """The machine was off for an hour: that was no measured time."""
    start(controller)
    live_until_promoted(world, controller)
    controller.close()
    world.pass_time(HOUR_S)
    again = world.controller()
    world.live(again, SPEC.watch - 10)
    assert phase(again) is Phase.WATCHING
    assert world.live_until_ended(again, limit_s=30) == "promoted"
    again.close()


# ---- steps


def test_a_soak_needs_requests(world: World, controller: Controller) -> None:
    """A canary that is proven harmless does not soak while nobody asks it."""
    start(controller, soak=30.0, evidence_deadline=HOUR_S)
    live_until(world, controller, 25)
    world.rps = 0.0
    live_long(world, controller, 300)
    assert weights(world)[-1] == 25
    world.rps = 100.0
    world.live(controller, 20)
    assert weights(world)[-1] == 25
    assert world.live_until_ended(controller) == "promoted"


def test_a_weight_that_is_not_in_force_earns_nothing(world: World, controller: Controller) -> None:
    """The gateway does not converge: what it counts belongs to the weight before, and the canary loses the new one."""
    start(controller)
    live_until(world, controller, 5)
    world.router.reads_until_converged = 10**6
    live_long(world, controller, 200)
    steps = [event.weight_percent for event in events(world) if isinstance(event, e.StepEntered)]
    assert steps == [5, 25, 5]


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_canary_that_nobody_can_see_returns_to_where_it_passed(
    world: World, controller: Controller, *, is_paused: bool
) -> None:
    """Once, also while it is paused; it rises again when there is evidence, unless a person holds it."""
    start(controller)
    live_until(world, controller, 25)
    if is_paused:
        controller.execute(c.Pause("ann"))
    world.is_source_up = False
    world.live(controller, SPEC.evidence_deadline - 5)
    assert weights(world)[-1] == 25
    live_long(world, controller, 600)
    assert weights(world) == [0, 0, 5, 25, 5] if weights(world)[1] == 0 else [0, 5, 25, 5]
    (_, _, back) = [event for event in events(world) if isinstance(event, e.StepEntered)]
    assert (back.weight_percent, "there was no reading for 40 s" in back.reason) == (5, True)
    world.is_source_up = True
    if is_paused:
        world.live(controller, 100)
        assert weights(world)[-1] == 5
        controller.execute(c.Resume("ann"))
    assert world.live_until_ended(controller) == "promoted"


@pytest.mark.parametrize("steps", [(5, 100), "auto"])
def test_the_first_weight_returns_to_no_traffic_and_comes_again(
    world: World, controller: Controller, steps: object
) -> None:
    """Where there was no shadow, the canary has nothing while nobody can see it."""
    start(controller, steps=steps, soak=60.0)
    first = 5 if steps != "auto" else 1
    live_until(world, controller, first)
    world.is_source_up = False
    live_long(world, controller, 300)
    assert (weights(world)[-1], world.running()) == (0, ("m:v1", "m:v2"))
    world.is_source_up = True
    world.live(controller, 10)
    assert weights(world)[-1] == first
    assert world.live_until_ended(controller) == "promoted"


def test_the_first_weight_returns_to_the_shadow(world: World, controller: Controller) -> None:
    """There the canary gets copies, so evidence goes on."""
    start(controller, steps=("shadow", 5, 100), soak=60.0)
    live_until(world, controller, 5)
    world.is_source_up = False
    live_long(world, controller, 300)
    assert (weights(world)[-1], world.router.history[-1].mirror) == (0, True)
    world.is_source_up = True
    assert world.live_until_ended(controller) == "promoted"


def test_a_night_without_traffic_takes_one_step_back_and_no_more(world: World, controller: Controller) -> None:
    """And one request now and then does not make the weight rise and fall all night."""
    start(controller)
    live_until(world, controller, 50)
    world.rps = 0.0
    live_long(world, controller, 600)
    assert weights(world)[-2:] == [50, 25]
    world.rps = 0.1
    live_long(world, controller, 1800)
    left = [old for old, new in pairwise(weights(world)) if new < old]
    assert len(left) == len(set(left))
    world.rps = 100.0
    assert world.live_until_ended(controller) == "promoted"


def test_a_paused_release_without_traffic_keeps_its_weight(world: World, controller: Controller) -> None:
    """Nobody is harmed, and a person asked for this weight."""
    start(controller)
    live_until(world, controller, 25)
    controller.execute(c.Pause("ann"))
    world.rps = 0.0
    live_long(world, controller, 600)
    assert weights(world)[-1] == 25


def test_traffic_does_not_return_to_a_stable_that_is_down(world: World, controller: Controller) -> None:
    """The canary is the only version that answers."""
    start(controller)
    live_until(world, controller, 25)
    world.is_source_up = False
    world.edit("m:v1", health=Health.UNREADY)
    live_long(world, controller, 300)
    assert weights(world)[-1] == 25
    assert isinstance(controller._action, Hold)
    assert controller._action.needs_person


def test_a_restarted_controller_knows_where_the_weight_returned_to(world: World, controller: Controller) -> None:
    """It neither returns once more nor forgets to rise again."""
    start(controller)
    live_until(world, controller, 25)
    world.is_source_up = False
    world.live(controller, 60)
    controller.close()
    again = world.controller()
    live_long(world, again, 300)
    assert weights(world)[-2:] == [25, 5]
    world.is_source_up = True
    assert world.live_until_ended(again) == "promoted"
    again.close()


def test_a_restarted_controller_knows_the_release_before_it_has_looked_at_anything_else(
    world: World, controller: Controller
) -> None:
    """Whoever asked in the moment before the first beat was told that there is no release."""
    start(controller)
    live_until(world, controller, 25)
    controller.close()
    again = world.unstarted_controller()
    assert not again.has_looked(within_s=0)
    again.recover()
    assert again.has_looked(within_s=0)
    assert again.snapshot.deployment.active
    again.close()


# ---- clocks


def test_a_canary_that_turns_bad_after_the_clock_was_set_back_is_rolled_back(
    world: World, controller: Controller
) -> None:
    """The metric store's times are an hour old for an hour; that is no reason to read nothing."""
    start(controller, watch=30.0)
    live_until(world, controller, 25)
    world.set_clock(-HOUR_S)
    world.edit("m:v2", error_ratio=0.3)
    assert world.live_until_ended(controller, limit_s=60) == "rolled_back"


@pytest.mark.parametrize("by_s", [-HOUR_S, -20.0, 20.0, HOUR_S])
@pytest.mark.parametrize("percent", [5, 25, 100])
def test_a_clock_that_is_set_ends_no_step(world: World, controller: Controller, percent: float, by_s: float) -> None:
    """The step soaks for as long as it would have, and the jump is noted once."""
    start(controller, soak=60.0)
    live_until(world, controller, percent)
    world.set_clock(by_s)
    world.live(controller, 45)
    assert weights(world)[-1] == percent
    assert phase(controller) is Phase.STEPPING
    assert world.live_until_ended(controller) == "promoted"
    (text,) = notes(world, "clock_jumped")
    assert ("ahead" if by_s > 0 else "back") in text


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_a_clock_that_is_set_does_not_end_the_watch(world: World, controller: Controller, by_s: float) -> None:
    """It lasts as long as it would have."""
    start(controller)
    live_until_promoted(world, controller)
    began_s = world.steady_s
    world.live(controller, 10)
    world.set_clock(by_s)
    while phase(controller) is Phase.WATCHING:
        world.live(controller, 0.5)
    assert SPEC.watch <= world.steady_s - began_s <= SPEC.watch + 3 * SPEC.window


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_a_clock_that_is_set_gives_a_canary_its_time_to_start(
    world: World, controller: Controller, by_s: float
) -> None:
    """It takes 20 of its 30 s; the record says 20 s, too."""
    world.edit("m:v2", start_s=20.0)
    start(controller)
    world.live(controller, 5)
    world.set_clock(by_s)
    assert world.live_until_ended(controller) == "promoted"
    (ready,) = [event for event in events(world) if isinstance(event, e.CanaryReady)]
    assert ready.took_s == pytest.approx(20, abs=2)


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_a_canary_that_never_starts_is_given_up_in_time(world: World, controller: Controller, by_s: float) -> None:
    """Neither an hour later nor at once."""
    world.edit("m:v2", start_s=1e9)
    start(controller)
    world.live(controller, 5)
    world.set_clock(by_s)
    world.live(controller, SPEC.startup_deadline - 10)
    assert phase(controller) is Phase.STARTING
    assert world.live_until_ended(controller, limit_s=60) == "rolled_back"


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_a_clock_that_is_set_cuts_off_no_request_of_a_version_that_leaves(
    world: World, controller: Controller, by_s: float
) -> None:
    """It has as long as ever to finish what it answers, and no longer."""
    start(controller)
    live_until(world, controller, 25)
    world.router.in_flight["m:v2"] = 1
    controller.execute(c.Abort("ann"))
    world.live(controller, 2)
    world.set_clock(by_s)
    world.live(controller, 15)
    assert "m:v2" in world.running()
    world.live(controller, 30)
    assert "m:v2" not in world.running()


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_a_silent_canary_is_rolled_back_after_as_long_as_the_plan_says(
    world: World, controller: Controller, by_s: float
) -> None:
    """`down_after` is 10 s on any day."""
    start(controller, steps=(5, 25, 50, 100), soak=60.0)
    live_until(world, controller, 25)
    world.edit("m:v2", health=Health.UNREADY)
    world.live(controller, 3)
    world.set_clock(by_s)
    world.live(controller, 4)
    assert phase(controller) is Phase.STEPPING
    assert world.live_until_ended(controller, limit_s=60) == "rolled_back"


def test_a_reboot_gives_a_canary_its_whole_time_to_start(world: World, controller: Controller) -> None:
    """The controller was away for longer than the canary may take; it starts anew, as every process does."""
    world.edit("m:v2", start_s=20.0)
    start(controller)
    world.live(controller, 5)
    controller.close()
    world.versions["m:v2"].health = Health.ABSENT
    world.pass_time(120)
    again = world.controller()
    assert world.live_until_ended(again) == "promoted"
    again.close()


@pytest.mark.parametrize("place", ["watch", "step"])
def test_what_is_refused_while_the_versions_load_again_accuses_nobody(
    world: World, controller: Controller, place: str
) -> None:
    """After a reboot the gateway is there first, and answers 503 for the version that it chose."""
    start(controller)
    if place == "watch":
        live_until_promoted(world, controller)
    else:
        live_until(world, controller, 25)
    controller.close()
    for version in world.versions.values():
        version.health, version.ready_s = Health.STARTING, world.steady_s + 8
    again = world.controller()
    for _ in range(16):
        world.pass_time(0.5)
        world._count("m:v2", "errors", 20, 20)
        again.beat()
    assert again.snapshot.loaded_s < 1
    alert = Alert("Burns", "26 % failed", is_firing=True, asks_for_rollback=True, version="m:v2", began_s=None)
    now = again.snapshot
    assert "loading" in str(objection(alert, now.deployment, now.health, loaded_s=now.loaded_s))
    world.live(again, 2)
    assert again.snapshot.loaded_s == pytest.approx(2, abs=0.5)
    assert world.live_until_ended(again) == "promoted"
    again.close()


def test_a_release_that_begins_just_after_its_stack_is_not_kept_from_alerts(
    world: World, controller: Controller
) -> None:
    """The stable version was loading before: that says nothing about the requests of this release."""
    world.versions["m:v1"].health, world.versions["m:v1"].ready_s = Health.STARTING, world.steady_s + 3
    world.live(controller, 5)
    assert controller.snapshot.loaded_s < 5
    start(controller)
    live_until(world, controller, 25)
    assert controller.snapshot.loaded_s > LOOKS_BACK_S


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_the_loop_beats_whatever_the_clock_says(world: World, controller: Controller, by_s: float) -> None:
    """`/readyz` tells a loop that stands still from one that does not."""
    world.set_clock(by_s)
    assert controller.is_beating(within_s=5)
    world.steady_s += 100
    world.set_clock(-HOUR_S)
    assert not controller.is_beating(within_s=5)


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_what_was_counted_before_a_jump_is_neither_lost_nor_old(
    world: World, controller: Controller, by_s: float
) -> None:
    """The calibration keeps its history, and the guard forgets after half a minute."""
    live_long(world, controller, 300)
    span_s = controller._calibration.span_s
    world.set_clock(by_s)
    world.live(controller, 30)
    assert controller._calibration.span_s == pytest.approx(span_s + 30, abs=5)
    start(controller, soak=100.0)
    live_until(world, controller, 25)
    world.set_clock(by_s)
    world.live(controller, 90)
    assert controller._run.recent.canary.total < 40 * world.rps


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_a_clock_that_is_set_invents_no_evidence(world: World, controller: Controller, by_s: float) -> None:
    """Each request is counted once at most, in windows that are as long as the time that passed."""
    start(controller)
    live_until(world, controller, 25)
    world.set_clock(by_s)
    assert world.live_until_ended(controller) == "promoted"
    ticks = [event for event in events(world) if isinstance(event, e.Ticked)]
    assert all(0 < tick.window_s <= SPEC.window + 1 for tick in ticks)
    counted = sum(w.canary.total for tick in ticks for w in tick.windows if w.signal == "errors")
    assert counted <= world.counters["m:v2-process", "m:v2", "errors"].total


def test_a_metric_store_whose_clock_is_set_back_is_read_on(world: World, controller: Controller) -> None:
    """The controller's own clock is right: the store's times are an hour old from now on."""
    start(controller)
    live_until(world, controller, 25)
    read = world.read

    def behind(*args, **kwargs):  # type: ignore[no-untyped-def]
        reading = read(*args, **kwargs)
        return type(reading)(reading.at_s - HOUR_S, reading.counters)

    world.read = behind  # type: ignore[method-assign]
    world.edit("m:v2", error_ratio=0.3)
    assert world.live_until_ended(controller, limit_s=400) == "rolled_back"
    (text,) = notes(world, "clock_jumped")
    assert "the clock of the metric source was set 60 min back" in text


def test_time_goes_on_evenly_in_a_release_without_jumps(world: World, controller: Controller) -> None:
    """Nothing is noted where nothing was set."""
    start(controller)
    assert world.live_until_ended(controller) == "promoted"
    assert notes(world, "clock_jumped") == []
    at_s = [event.at_s for event in events(world)]
    assert all(earlier <= later for earlier, later in pairwise(at_s))


# ---- where the counters come from


def test_a_store_that_is_away_is_noted_once_and_the_release_goes_on(world: World, controller: Controller) -> None:
    """The counters are read directly: the story does not say that nothing was decided."""
    start(controller)
    live_until(world, controller, 5)
    world.trouble = "Prometheus gives no answer; the counters are read directly"
    live_until(world, controller, 50)
    assert controller.snapshot.troubles == (world.trouble,)
    world.trouble = None
    assert world.live_until_ended(controller) == "promoted"
    assert controller.snapshot.troubles == ()
    assert notes(world, "store_unreachable") == ["Prometheus gives no answer; the counters are read directly"]
    assert len(notes(world, "store_back")) == 1
    assert notes(world, "source_unreachable") == []


def test_a_release_that_is_not_judged_is_shown(world: World, controller: Controller) -> None:
    """In the status and as a number for the alert; not between two windows, nor without a release."""
    assert controller.snapshot.unjudged_s == 0
    start(controller)
    live_until(world, controller, 25)
    assert (controller.snapshot.unjudged_s, controller.snapshot.troubles) == (0, ())
    world.is_source_up = False
    world.live(controller, 20)
    assert controller.snapshot.unjudged_s == pytest.approx(20, abs=3)
    (trouble,) = controller.snapshot.troubles
    assert trouble.startswith("the release has not been judged for ")
    shown = re.search(
        r"^kanaria_controller_unjudged_seconds (\d+)", controller._metrics.exposition().decode(), re.MULTILINE
    )
    assert shown
    assert int(shown[1]) > 15
    world.is_source_up = True
    world.live(controller, 5)
    assert controller.snapshot.unjudged_s == 0


def test_the_story_of_a_release_is_right_whatever_the_clock_did(world: World, controller: Controller) -> None:
    """Requests belong to the step in which the ledger has them, and no duration is negative."""
    start(controller, soak=20.0)
    live_until(world, controller, 25)
    world.set_clock(-HOUR_S)
    assert world.live_until_ended(controller) == "promoted"
    story = timeline([event for event in events(world) if event.release == 1])
    assert all(step.canary.total > 0 for step in story.steps)
    told = [line for topic in why(story).topics for line in topic.lines]
    assert any("clock was set 60 min back" in line for line in told)
    assert not any(re.search(r"-\d", line) for line in told if "UTC" not in line)


def test_a_weight_that_was_taken_back_is_told_as_what_it_is(world: World, controller: Controller) -> None:
    """Not as a step that was earned by evidence."""
    start(controller)
    live_until(world, controller, 25)
    world.is_source_up = False
    world.live(controller, 100)
    back = timeline([event for event in events(world) if event.release == 1]).decisions[-1]
    assert (back.by, back.evidence, back.weight_percent) == ("controller", None, 5)
