"""An idle controller: its beats use no memory and hardly any room in the ledger."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rollout.control.calibration import HISTORY_S
from rollout.control.commands import Pause, Resume, StartRelease
from rollout.control.controller import Controller
from rollout.control.release_judge import replayed
from rollout.control.timing import BEAT_S
from rollout.ledger.check import check
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import fold
from rollout.spec import RolloutSpec
from tests.support.world import Version, World

MINUTE_S, HOUR_S = 60.0, 3600.0
SLACK_BLOCKS = 300  # caches of the interpreter; one object kept per beat or reading would exceed this twice over
PLAN = RolloutSpec(window=10.0, steps=(5, 100), step_deadline=7 * 24 * HOUR_S, on_deadline="hold")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ledger.db", versions={"m:v1": Version(), "m:v2": Version()})


def test_ticks_without_users_and_without_a_release_leave_nothing_behind(world: World, controller: Controller) -> None:
    """25 minutes of beats in which no history period ends: no more memory than after ten, and no byte in the ledger."""
    world.rps = 0
    world.live(controller, MINUTE_S)
    ledger_bytes = sum(path.stat().st_size for path in world.path.parent.glob("ledger.db*"))
    live(world, controller, 9 * MINUTE_S, beat_s=BEAT_S)
    assert memory_of(lambda: live(world, controller, 15 * MINUTE_S, beat_s=BEAT_S)) < SLACK_BLOCKS
    assert sum(path.stat().st_size for path in world.path.parent.glob("ledger.db*")) == ledger_bytes


def live(world: World, controller: Controller, seconds: float, *, beat_s: float = PLAN.window) -> None:
    """Like `World.live`, with one beat for each reading: the beats in between do nothing."""
    for _ in range(round(seconds / beat_s)):
        world.pass_time(beat_s)
        controller.beat()


def hold_canary(world: World, controller: Controller, *, is_paused: bool) -> None:
    """A canary that got requests and now waits."""
    controller.execute(StartRelease("m:v2", PLAN, "ann"))
    world.live(controller, MINUTE_S)
    if is_paused:
        controller.execute(Pause("ann"))
    world.rps = 0
    world.live(controller, MINUTE_S)


def same_after_a_restart(world: World, controller: Controller) -> None:
    """A replay of the ledger gives the state of the controller and the same judgement."""
    controller.close()
    ledger = Ledger(world.path, read_only=True)
    release = controller._deployment.release
    assert release is not None
    assert fold(ledger.events()) == controller._deployment
    judge = replayed(ledger.events(release=release.number))
    ledger.close()
    assert judge is not None
    assert controller._run.judge is not None
    assert judge.judgement(release) == controller._run.judge.judgement(release)
    check(world.path)


def test_hours_without_a_release_leave_nothing_behind(world: World, controller: Controller) -> None:
    """No further event, and no more memory than after one hour."""
    world.rps = 0
    live(world, controller, HOUR_S)
    events, kept_blocks = controller._ledger.count(), memory_of(lambda: live(world, controller, 2 * HOUR_S))
    assert controller._ledger.count() == events
    assert kept_blocks < SLACK_BLOCKS


def test_twelve_hours_beside_a_paused_canary_leave_no_file_behind(world: World, controller: Controller) -> None:
    """No open file and none on disk; one event a minute, and no more memory than after the first hours."""
    hold_canary(world, controller, is_paused=True)
    live(world, controller, HISTORY_S + MINUTE_S)
    events, files, opened = controller._ledger.count(), files_of(world), psutil.Process().num_fds()
    assert memory_of(lambda: live(world, controller, 12 * HOUR_S)) < SLACK_BLOCKS
    assert 12 * 60 <= controller._ledger.count() - events <= 12 * 60 + 5
    assert (files_of(world), psutil.Process().num_fds()) == (files, opened)


def files_of(world: World) -> set[Path]:
    return set(world.path.parent.rglob("*"))


@pytest.mark.parametrize("is_paused", [True, False], ids=["paused", "held"])
def test_a_canary_that_waits_without_requests_adds_an_event_a_minute(
    world: World, controller: Controller, is_paused: bool
) -> None:
    """There was one event for each reading, 45 MB in twelve hours."""
    hours = 2
    hold_canary(world, controller, is_paused=is_paused)
    live(world, controller, HISTORY_S + MINUTE_S)  # older counts are dropped by now, not during the measurement
    events = controller._ledger.count()
    kept_blocks = memory_of(lambda: live(world, controller, hours * HOUR_S))
    assert hours * 60 <= controller._ledger.count() - events <= hours * 60 + 5, "a held canary goes back a step"
    assert kept_blocks < SLACK_BLOCKS
    same_after_a_restart(world, controller)


def test_what_happens_while_a_canary_waits_is_written_at_once(world: World, controller: Controller) -> None:
    """This covers requests, a command, and a period in which the deadline counts every second."""
    hold_canary(world, controller, is_paused=True)
    live(world, controller, 30.0)
    assert controller._quiet.held
    controller.execute(Resume("ann"))
    assert not controller._quiet.held
    release = controller._deployment.active
    assert release is not None
    before_s = release.measured_s
    live(world, controller, 30.0)
    release = controller._deployment.active
    assert release is not None
    assert release.measured_s == pytest.approx(before_s + 30.0)
    events = controller._ledger.count()
    world.rps = 100.0
    live(world, controller, 10.0)
    world.rps = 0
    assert controller._ledger.count() == events + 2, "the deferred event and a window"
    for seconds in (10.0, 30.0, 70.0, 200.0):
        live(world, controller, seconds)
        world.rps = 100.0
        live(world, controller, 10.0)
        world.rps = 0
    same_after_a_restart(world, controller)


def test_a_controller_killed_while_a_canary_waits_counts_everything_once(world: World, controller: Controller) -> None:
    """Deferred events had no evidence; its successor reads the requests that came meanwhile."""
    hold_canary(world, controller, is_paused=True)
    live(world, controller, 20.0)
    assert controller._quiet.held
    controller._ledger.close()  # nothing more is written
    world.rps = 100.0
    world.pass_time(10.0)
    later = world.controller()
    live(world, later, 10.0)
    release = later._deployment.active
    assert release is not None
    ledger = Ledger(world.path, read_only=True)
    ticks = [event for event in ledger.events(release=release.number) if event.kind == "ticked"]
    ledger.close()
    errors = [window for tick in ticks for window in tick.windows if window.signal == "errors"]
    counted = sum(window.canary.total for window in errors)
    assert counted == sum(
        pair.total for (_, tag, signal), pair in world.counters.items() if (tag, signal) == ("m:v2", "errors")
    )
    later.close()


def memory_of(run: Callable[[], None]) -> int:
    """Memory blocks that are allocated after `run` and were not before; faster to count than bytes."""
    gc.collect()
    before = sys.getallocatedblocks()
    run()
    gc.collect()
    return sys.getallocatedblocks() - before
