"""No data is never a pass, however much time passes, and no change of a clock decides anything."""

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
    """Live for minutes. After some seconds only readings can change anything, so the beats in between are skipped."""
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
def test_a_watch_without_counts_does_not_end(world: World, controller: Controller, switch) -> None:  # type: ignore[no-untyped-def]
    """It would make a bad version permanent and stop the good one. A person is asked; the watch continues later."""
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


def test_errors_that_could_not_be_read_in_the_watch_are_found_later(world: World, controller: Controller) -> None:
    """60 % of requests fail while the metric store is away, for ten times the length of the watch."""
    start(controller)
    live_until_promoted(world, controller)
    world.is_source_up = False
    world.edit("m:v2", error_ratio=0.6)
    live_long(world, controller, 10 * SPEC.watch)
    world.is_source_up = True
    assert world.live_until_ended(controller, limit_s=30) == "rolled_back"


def test_one_window_after_a_long_gap_does_not_end_the_watch(world: World, controller: Controller) -> None:
    """It holds all counts of the gap, but says little about each moment of it."""
    start(controller, watch=600.0)
    live_until_promoted(world, controller)
    world.is_source_up = False
    live_long(world, controller, 900)
    world.is_source_up = True
    world.live(controller, 10)
    assert phase(controller) is Phase.WATCHING


def test_a_short_gap_only_prolongs_the_watch(world: World, controller: Controller) -> None:
    """Nobody is asked."""
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
    """There is no version to return to, and nothing was shown to be well."""
    start(controller)
    live_until_promoted(world, controller)
    for tag in world.versions:
        world.edit(tag, health=Health.DEAD, has_crashed=True)
    live_long(world, controller, 10 * SPEC.watch)
    assert phase(controller) is Phase.WATCHING
    assert isinstance(controller._action, Hold)
    assert controller._action.needs_person


def test_time_without_a_controller_does_not_count_for_the_watch(world: World, controller: Controller) -> None:
    """The machine was off for an hour, in which nothing was measured."""
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
    """A canary that is proven harmless does not soak while it gets no requests."""
    start(controller, soak=30.0, evidence_deadline=HOUR_S)
    live_until(world, controller, 25)
    world.rps = 0.0
    live_long(world, controller, 300)
    assert weights(world)[-1] == 25
    world.rps = 100.0
    world.live(controller, 20)
    assert weights(world)[-1] == 25
    assert world.live_until_ended(controller) == "promoted"


def test_a_weight_that_is_not_in_force_collects_no_evidence(world: World, controller: Controller) -> None:
    """The gateway does not converge: its counts belong to the previous weight, and the canary loses the new one."""
    start(controller)
    live_until(world, controller, 5)
    world.router.reads_until_converged = 10**6
    live_long(world, controller, 200)
    steps = [event.weight_percent for event in events(world) if isinstance(event, e.StepEntered)]
    assert steps == [5, 25, 5]


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_canary_without_readings_returns_to_the_last_weight_that_passed(
    world: World, controller: Controller, *, is_paused: bool
) -> None:
    """It does so once, even while paused. It rises again when there is evidence, unless a person paused it."""
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
def test_a_canary_without_readings_at_the_first_weight_gets_no_traffic_until_they_return(
    world: World, controller: Controller, steps: object
) -> None:
    """Without a shadow, there is no lower weight that still brings evidence."""
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


def test_a_canary_without_readings_at_the_first_weight_returns_to_the_shadow(
    world: World, controller: Controller
) -> None:
    """There it gets copies, so evidence still comes."""
    start(controller, steps=("shadow", 5, 100), soak=60.0)
    live_until(world, controller, 5)
    world.is_source_up = False
    live_long(world, controller, 300)
    assert (weights(world)[-1], world.router.history[-1].mirror) == (0, True)
    world.is_source_up = True
    assert world.live_until_ended(controller) == "promoted"


def test_a_night_without_traffic_goes_one_step_back_and_no_further(world: World, controller: Controller) -> None:
    """A request now and then does not raise and lower the weight all night."""
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
    """Nobody is harmed, and a person chose this weight."""
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


def test_a_restarted_controller_remembers_that_the_weight_was_lowered(world: World, controller: Controller) -> None:
    """It neither lowers it again nor forgets to raise it again."""
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


def test_a_restarted_controller_knows_its_release_before_the_first_beat(world: World, controller: Controller) -> None:
    """A request for the status just before the first beat got the answer that no release runs."""
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


def test_harm_after_the_clock_was_set_back_is_rolled_back(world: World, controller: Controller) -> None:
    """For an hour the metric store's times are an hour old; they must still be read."""
    start(controller, watch=30.0)
    live_until(world, controller, 25)
    world.set_clock(-HOUR_S)
    world.edit("m:v2", error_ratio=0.3)
    assert world.live_until_ended(controller, limit_s=60) == "rolled_back"


@pytest.mark.parametrize("by_s", [-HOUR_S, -20.0, 20.0, HOUR_S])
@pytest.mark.parametrize("percent", [5, 25, 100])
def test_setting_the_clock_ends_no_step(world: World, controller: Controller, percent: float, by_s: float) -> None:
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
def test_setting_the_clock_does_not_end_the_watch(world: World, controller: Controller, by_s: float) -> None:
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
def test_setting_the_clock_does_not_shorten_the_startup_deadline(
    world: World, controller: Controller, by_s: float
) -> None:
    """The canary takes 20 of its 30 s, and the record says 20 s."""
    world.edit("m:v2", start_s=20.0)
    start(controller)
    world.live(controller, 5)
    world.set_clock(by_s)
    assert world.live_until_ended(controller) == "promoted"
    (ready,) = [event for event in events(world) if isinstance(event, e.CanaryReady)]
    assert ready.took_s == pytest.approx(20, abs=2)


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_a_canary_that_never_starts_is_given_up_in_time_whatever_the_clock(
    world: World, controller: Controller, by_s: float
) -> None:
    """It is given up neither an hour later nor at once."""
    world.edit("m:v2", start_s=1e9)
    start(controller)
    world.live(controller, 5)
    world.set_clock(by_s)
    world.live(controller, SPEC.startup_deadline - 10)
    assert phase(controller) is Phase.STARTING
    assert world.live_until_ended(controller, limit_s=60) == "rolled_back"


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_setting_the_clock_cuts_off_no_request_of_a_leaving_version(
    world: World, controller: Controller, by_s: float
) -> None:
    """It has as long as usual to finish its requests, and no longer."""
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
def test_down_after_does_not_depend_on_the_clock(world: World, controller: Controller, by_s: float) -> None:
    """A canary that is down is rolled back after `down_after` of 10 s."""
    start(controller, steps=(5, 25, 50, 100), soak=60.0)
    live_until(world, controller, 25)
    world.edit("m:v2", health=Health.UNREADY)
    world.live(controller, 3)
    world.set_clock(by_s)
    world.live(controller, 4)
    assert phase(controller) is Phase.STEPPING
    assert world.live_until_ended(controller, limit_s=60) == "rolled_back"


def test_a_canary_gets_its_whole_startup_deadline_after_a_reboot(world: World, controller: Controller) -> None:
    """The controller was away for longer than that deadline; the canary starts again, as every process does."""
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
def test_requests_refused_while_versions_load_count_against_none(
    world: World, controller: Controller, place: str
) -> None:
    """After a reboot the gateway runs first, and answers 503 for the version that it chose."""
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


def test_alerts_count_in_a_release_that_starts_just_after_the_stack(world: World, controller: Controller) -> None:
    """Stable loaded before it; that says nothing about the requests of this release."""
    world.versions["m:v1"].health, world.versions["m:v1"].ready_s = Health.STARTING, world.steady_s + 3
    world.live(controller, 5)
    assert controller.snapshot.loaded_s < 5
    start(controller)
    live_until(world, controller, 25)
    assert controller.snapshot.loaded_s > LOOKS_BACK_S


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_the_loop_is_seen_to_run_whatever_the_clock_says(world: World, controller: Controller, by_s: float) -> None:
    """`/readyz` distinguishes a loop that has stopped from one that runs."""
    world.set_clock(by_s)
    assert controller.is_beating(within_s=5)
    world.steady_s += 100
    world.set_clock(-HOUR_S)
    assert not controller.is_beating(within_s=5)


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_counts_from_before_a_clock_change_are_neither_lost_nor_outdated(
    world: World, controller: Controller, by_s: float
) -> None:
    """Calibration keeps its history, and the guard still drops counts older than half a minute."""
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
def test_setting_the_clock_invents_no_evidence(world: World, controller: Controller, by_s: float) -> None:
    """Each request counts at most once, in windows as long as the time that passed."""
    start(controller)
    live_until(world, controller, 25)
    world.set_clock(by_s)
    assert world.live_until_ended(controller) == "promoted"
    ticks = [event for event in events(world) if isinstance(event, e.Ticked)]
    assert all(0 < tick.window_s <= SPEC.window + 1 for tick in ticks)
    counted = sum(w.canary.total for tick in ticks for w in tick.windows if w.signal == "errors")
    assert counted <= world.counters["m:v2-process", "m:v2", "errors"].total


def test_a_metric_store_whose_clock_is_set_back_is_still_read(world: World, controller: Controller) -> None:
    """The controller's own clock is right; the store's times are an hour old from now on."""
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


def test_a_release_without_clock_changes_notes_none(world: World, controller: Controller) -> None:
    """Its time passes evenly."""
    start(controller)
    assert world.live_until_ended(controller) == "promoted"
    assert notes(world, "clock_jumped") == []
    at_s = [event.at_s for event in events(world)]
    assert all(earlier <= later for earlier, later in pairwise(at_s))


# ---- where the counters come from


def test_a_store_that_is_away_is_noted_once_and_the_release_goes_on(world: World, controller: Controller) -> None:
    """The counters are read directly; the timeline must not say that nothing was decided."""
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


def test_the_status_shows_a_release_that_is_not_judged(world: World, controller: Controller) -> None:
    """It is also a metric for the alert; it is not set between two windows or without a release."""
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


def test_the_timeline_of_a_release_is_right_whatever_the_clock_did(world: World, controller: Controller) -> None:
    """Requests belong to the step under which the ledger has them, and no duration is negative."""
    start(controller, soak=20.0)
    live_until(world, controller, 25)
    world.set_clock(-HOUR_S)
    assert world.live_until_ended(controller) == "promoted"
    story = timeline([event for event in events(world) if event.release == 1])
    assert all(step.canary.total > 0 for step in story.steps)
    told = [line for topic in why(story).topics for line in topic.lines]
    assert any("clock was set 60 min back" in line for line in told)
    assert not any(re.search(r"-\d", line) for line in told if "UTC" not in line)


def test_a_lowered_weight_is_explained_as_such(world: World, controller: Controller) -> None:
    """It is not shown as a step that was entered on evidence."""
    start(controller)
    live_until(world, controller, 25)
    world.is_source_up = False
    world.live(controller, 100)
    back = timeline([event for event in events(world) if event.release == 1]).decisions[-1]
    assert (back.by, back.evidence, back.weight_percent) == ("controller", None, 5)
