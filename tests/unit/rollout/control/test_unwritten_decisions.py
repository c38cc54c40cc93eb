"""A decision that cannot be written is not lost, keeps its order, and keeps no bad version in traffic."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.errors import LedgerError
from rollout.ledger import copies, places
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Phase
from rollout.spec import RolloutSpec
from tests.support.small_disk import SmallDisk
from tests.support.world import Version, World

SPEC = RolloutSpec(steps=(5, 50, 100), soak=5, window=2, step_deadline=300, holdback=0, watch=20, risk_budget=0.02)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ledger.db", versions={"m:v1": Version(), "m:v2": Version()})


@contextmanager
def locked(world: World) -> Iterator[None]:
    """Another program holds the write lock of the ledger."""
    other = sqlite3.connect(world.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


def impatient(controller: Controller) -> Controller:
    """A controller that notices a lock at once instead of waiting for it in real time."""
    controller._ledger._db.execute("PRAGMA busy_timeout = 1")
    return controller


def events(world: World) -> list[e.Event]:
    ledger = Ledger(world.path, read_only=True)
    try:
        return list(ledger.events())
    finally:
        ledger.close()


def of_kind(world: World, *kinds: str) -> list[str]:
    return [event.kind for event in events(world) if event.kind in kinds]


def at_half(world: World, controller: Controller) -> None:
    """m:v2 is on trial and has half of the traffic."""
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    while weight(world) != 50:
        world.live(controller, 0.5)


def weight(world: World) -> float:
    """The canary's current share, percent."""
    return world.router.history[-1].canary_percent


def seconds_until_gone(world: World, controller: Controller) -> float:
    since_s = world.now_s
    while weight(world):
        assert world.now_s - since_s < 120
        world.live(controller, 0.5)
    return world.now_s - since_s


def test_a_locked_ledger_does_not_keep_a_bad_version_in_traffic(world: World, controller: Controller) -> None:
    """It leaves as soon as with a free ledger; later everything is in the ledger, in order and once."""
    at_half(world, impatient(controller))
    world.edit("m:v2", error_ratio=0.3)
    with locked(world):
        took_s = seconds_until_gone(world, controller)
        assert took_s < 10
        world.live(controller, 600)
        assert of_kind(world, "rolled_back", "ended") == []
        assert controller.snapshot.deployment.active is None
    world.live(controller, 5)
    written = events(world)
    kinds = [event.kind for event in written if event.kind not in ("ticked", "noted")]
    assert kinds[-3:] == ["rolled_back", "applied", "ended"]
    assert all(earlier.at_s <= later.at_s for earlier, later in pairwise(written))
    counted = sum(
        window.canary.total
        for event in written
        if isinstance(event, e.Ticked)
        for window in event.windows
        if window.signal == "errors"
    )
    assert 0 < counted <= world.counters["m:v2-process", "m:v2", "errors"].total
    assert "m:v2" in controller.snapshot.deployment.quarantined


def test_evidence_from_while_the_ledger_was_locked_is_recorded_once(world: World, controller: Controller) -> None:
    """Each tick has its cursor, so a restarted controller counts on from the last tick that was written."""
    at_half(world, impatient(controller))
    with locked(world):
        world.live(controller, 30)
    world.live(controller, 3)
    ticks = [event for event in events(world) if isinstance(event, e.Ticked)]
    assert all(later.at_s - later.window_s >= earlier.at_s for earlier, later in pairwise(ticks))
    assert controller._ledger.cursor() == controller._measure.latest


def test_a_step_up_waits_for_the_ledger(world: World, controller: Controller) -> None:
    """No decision that gives the canary more traffic is executed before it is on disk; the recorded action says so."""
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    while weight(world) != 5:
        world.live(controller, 0.5)
    with locked(world):
        world.live(impatient(controller), 120)
        assert weight(world) == 5
    assert world.live_until_ended(controller) == "promoted"
    assert [
        event.action for event in events(world) if isinstance(event, e.Ticked) and "cannot be written" in event.why
    ].count("Hold") > 10
    decided = {0.0}
    for event in events(world):
        if isinstance(event, e.StepEntered):
            decided.add(event.weight_percent)
        elif isinstance(event, e.Applied):
            assert event.weight_percent in decided


def test_the_end_of_a_watch_waits_for_the_ledger(world: World, controller: Controller) -> None:
    """The previous version is stopped only after the ledger has the event."""
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    while controller.snapshot.deployment.stable != "m:v2":
        world.live(controller, 1)
    with locked(world):
        world.live(impatient(controller), 100)
        assert set(world.running()) == {"m:v1", "m:v2"}
    assert world.live_until_ended(controller) == "promoted"


@pytest.mark.parametrize("command", [c.RollbackNow("ann"), c.Abort("ann")])
def test_a_rollback_command_works_while_the_ledger_is_locked(
    world: World, controller: Controller, command: c.Command
) -> None:
    """It is executed at once and written later."""
    at_half(world, impatient(controller))
    with locked(world):
        controller.execute(command)
        world.live(controller, 5)
        assert weight(world) == 0
    world.live(controller, 2)
    assert of_kind(world, "rolled_back", "aborted", "ended")[-1] == "ended"
    assert len(of_kind(world, "rolled_back", "aborted")) == 1


def test_commands_that_do_not_reduce_risk_are_refused_while_the_ledger_is_locked(
    world: World, controller: Controller
) -> None:
    """The person reads why, and nothing changes. A pause is accepted: it holds the weight at once."""
    at_half(world, impatient(controller))
    with locked(world):
        with pytest.raises(LedgerError, match="locked"):
            controller.execute(c.PromoteNow("ann"))
        assert weight(world) == 50
        controller.execute(c.Pause("ann"))
        active = controller.snapshot.deployment.active
        assert active
        assert active.is_paused
        with pytest.raises(LedgerError, match="locked"):
            controller.execute(c.Resume("ann"))
    controller.execute(c.Resume("ann"))
    assert of_kind(world, "paused", "resumed") == ["paused", "resumed"]


@pytest.mark.parametrize("still_locked", [True, False])
def test_an_unwritten_rollback_survives_the_controller(
    world: World, controller: Controller, still_locked: bool
) -> None:
    """The ledger says 50 %. The next controller reads the decision from the file beside it and writes it first."""
    at_half(world, impatient(controller))
    world.edit("m:v2", error_ratio=0.3)
    with locked(world):
        seconds_until_gone(world, controller)
        controller.close()
        shifts = len(world.router.history)
        if still_locked:
            again = world.controller()
            world.live(impatient(again), 20)
            assert all(split.canary_percent == 0 for split in world.router.history[shifts:])
            assert of_kind(world, "rolled_back") == []
    if not still_locked:
        again = world.controller()
    assert world.live_until_ended(again) in ("rolled_back", None)
    world.live(again, 5)
    assert all(split.canary_percent == 0 for split in world.router.history[shifts:])
    assert of_kind(world, "rolled_back", "aborted", "ended") == ["rolled_back", "ended"]
    assert "m:v2" in again.snapshot.deployment.quarantined
    again.close()


def test_a_decision_is_written_once_if_its_writer_is_killed_in_between(world: World, controller: Controller) -> None:
    """The ledger has it, and the file beside the ledger still lists it as unwritten."""
    at_half(world, impatient(controller))
    kept = world.path.with_name("decisions.pending")
    with locked(world):
        controller.execute(c.RollbackNow("ann"))
        left = kept.read_text()
    controller._writer.flush()
    assert not kept.read_text().strip()
    controller.close()
    kept.write_text(left)
    again = world.controller()
    assert world.live_until_ended(again) == "rolled_back"
    again.close()
    assert of_kind(world, "rolled_back", "ended") == ["rolled_back", "ended"]
    assert not kept.read_text().strip()


def test_an_unwritten_decision_survives_a_clock_that_was_set_back(world: World, controller: Controller) -> None:
    """By its time alone it came before its release was requested."""
    at_half(world, impatient(controller))
    world.set_clock(-7200)
    with locked(world):
        controller.execute(c.RollbackNow("ann"))
        controller.close()
    again = world.controller()
    assert world.live_until_ended(again) == "rolled_back"
    again.close()


@pytest.mark.parametrize("text", ["{", '{"schema": 1, "event": "{}"}\n', "\x00" * 10, ""])
def test_a_damaged_file_beside_the_ledger_is_ignored(world: World, controller: Controller, text: str) -> None:
    """The release continues as the ledger says."""
    at_half(world, controller)
    controller.close()
    world.path.with_name("decisions.pending").write_text(text)
    again = world.controller()
    assert world.live_until_ended(again) == "promoted"
    again.close()


def test_an_unwritten_decision_of_an_earlier_ledger_is_ignored(world: World, controller: Controller) -> None:
    """A new ledger numbers its releases from 1 again."""
    at_half(world, impatient(controller))
    kept = world.path.with_name("decisions.pending")
    with locked(world):
        controller.execute(c.RollbackNow("ann"))
        left = kept.read_text()
    controller.close()
    other = World(world.path.with_name("new.db"), versions={"m:v1": Version(), "m:v2": Version()})
    other.now_s = world.now_s + 1000
    fresh = other.controller()
    fresh.execute(c.SetStable("m:v1", "ann"))
    other.live(fresh, 60)
    at_half(other, fresh)
    fresh.close()
    kept.write_text(left)
    again = other.controller()
    assert other.live_until_ended(again) == "promoted"
    again.close()


def test_an_unwritten_decision_is_not_applied_to_a_later_release_of_the_same_number(
    world: World, controller: Controller, tmp_path: Path
) -> None:
    """A person restored an older copy of the ledger, in which another release gets this number."""
    copies.copy(world.path, tmp_path / "copy.db")
    at_half(world, impatient(controller))
    with locked(world):
        controller.execute(c.RollbackNow("ann"))
        controller.close()
    for companion in places.companions(world.path):
        companion.unlink(missing_ok=True)
    (tmp_path / "copy.db").replace(world.path)
    again = world.controller()
    world.live(again, 60)
    at_half(world, again)
    again.close()
    third = world.controller()
    assert world.live_until_ended(third) == "promoted"
    third.close()


def test_recovery_needs_no_write_to_the_ledger(world: World, controller: Controller) -> None:
    """A controller that starts with a locked ledger judges at once; its restart is recorded later."""
    at_half(world, controller)
    controller.close()
    with locked(world):
        again = world.controller()
        world.edit("m:v2", error_ratio=0.3)
        assert seconds_until_gone(world, impatient(again)) < 10
    world.live(again, 2)
    again.close()
    topics = [event.topic for event in events(world) if isinstance(event, e.Noted)]
    assert topics.count("controller_started") == 1


def test_a_full_disk_does_not_keep_a_bad_version_in_traffic(small_disk: SmallDisk) -> None:
    """The reserved room holds the end of the release, and the ledger says that it was used."""
    world = World(small_disk.folder / "ledger.db", versions={"m:v1": Version(), "m:v2": Version()}, reserve_bytes=2**24)
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 20)
    at_half(world, controller)
    world.edit("m:v2", error_ratio=0.3)
    small_disk.fill()
    assert world.live_until_ended(controller) == "rolled_back"
    assert weight(world) == 0
    assert of_kind(world, "rolled_back", "ended") == ["rolled_back", "ended"]
    assert [event.topic for event in events(world) if isinstance(event, e.Noted)].count("disk_full") == 1
    reserve = world.path.with_suffix(".reserve")
    assert not reserve.exists()
    small_disk.free()
    world.live(controller, 1)
    assert reserve.exists()
    controller.close()


@pytest.mark.parametrize("dies", [False, True])
def test_a_disk_without_any_space_left_loses_no_decision(small_disk: SmallDisk, dies: bool) -> None:
    """No room was reserved, or it was used up: the decision stays beside the ledger until there is space."""
    world = World(small_disk.folder / "ledger.db", versions={"m:v1": Version(), "m:v2": Version()})
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 20)
    at_half(world, controller)
    small_disk.fill()
    filled_up(world, controller)
    world.edit("m:v2", error_ratio=0.3)
    seconds_until_gone(world, controller)
    world.live(controller, 20)
    assert controller._writer.waiting
    if dies:
        controller.close()
        controller = world.controller()
        world.live(controller, 5)
    assert weight(world) == 0
    small_disk.free()
    world.live(controller, 5)
    assert of_kind(world, "rolled_back", "ended") == ["rolled_back", "ended"]
    controller.close()


def test_a_ledger_that_is_deleted_while_the_controller_runs_loses_no_decision(
    world: World, controller: Controller
) -> None:
    """If it cannot be put back, decisions wait beside it, and a restored copy does not bring the canary back."""
    at_half(world, controller)
    world.path.with_name(".ledger.db.put-back").mkdir()  # no file can be written under this name
    copied = sqlite3.connect(world.path.with_name("copy.db"))
    with sqlite3.connect(world.path) as source:
        source.backup(copied)
    copied.close()
    source.close()
    for file in world.path.parent.glob("ledger.db*"):
        file.unlink()
    world.edit("m:v2", error_ratio=0.3)
    seconds_until_gone(world, controller)
    world.live(controller, 1)
    assert "deleted" in controller.snapshot.troubles[0]
    controller.close()
    shutil.copy(world.path.with_name("copy.db"), world.path)
    again = world.controller()
    world.live(again, 5)
    assert weight(world) == 0
    assert of_kind(world, "rolled_back", "ended") == ["rolled_back", "ended"]
    again.close()


def filled_up(world: World, controller: Controller) -> None:
    """Use up the space that SQLite still had in its own files."""
    while not controller._writer.waiting:
        world.live(controller, 0.5)
        controller._note("fleet", "x" * 2000)


def test_logged_user_failures_are_deleted_only_after_they_are_written(world: World, controller: Controller) -> None:
    """A restarted controller reads them from the gateway's log."""
    controller.execute(c.StartRelease("m:v2", SPEC.model_copy(update={"sticky": "x-user"}), "ann"))
    while weight(world) != 5:
        world.live(controller, 0.5)
    trimmed: list[int] = []
    world.failures.trim = lambda offset: trimmed.append(offset) or offset  # type: ignore[method-assign]
    with locked(world):
        world.live(impatient(controller), 20)
        assert trimmed == []
    world.live(controller, 3)
    assert trimmed


def test_readers_never_keep_the_controller_from_writing(world: World, controller: Controller) -> None:
    """One reader is `why` in the middle of its reading; the other is a person who copies the file."""
    at_half(world, controller)
    reader = Ledger(world.path, read_only=True)
    reading = reader.events()
    next(reading)
    person = sqlite3.connect(world.path)
    person.execute("BEGIN")
    person.execute("SELECT count(*) FROM events").fetchone()
    copy = sqlite3.connect(world.path.with_name("copy.db"))
    before = len(events(world))
    person.backup(copy)
    world.live(controller, 10)
    assert controller._writer.waiting == ()
    assert len(events(world)) > before
    for connection in (person, copy):
        connection.close()
    reader.close()
    active = controller.snapshot.deployment.active
    assert active
    assert active.phase is not Phase.LEAVING


def test_an_almost_full_disk_is_reported_with_a_remedy(small_disk: SmallDisk) -> None:
    """Before any write fails, the message says how much is left, where, and what follows."""
    world = World(small_disk.folder / "ledger.db", versions={"m:v1": Version()})
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 2)
    (said,) = controller.snapshot.troubles
    controller.close()
    assert said.startswith("the disk of the state folder is almost full: ")
    assert f" MB are left in {small_disk.folder}; make room: once nothing can be written, no version gets more" in said
