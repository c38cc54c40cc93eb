"""A ledger whose file is deleted or replaced under a running controller loses nothing."""

from contextlib import closing
from pathlib import Path

import pytest

from rollout.control.commands import RollbackNow, SetStable, StartRelease
from rollout.control.controller import Controller
from rollout.ledger import events as e
from rollout.ledger.check import check
from rollout.ledger.ledger import Ledger
from rollout.spec import RolloutSpec
from tests.support.small_disk import SmallDisk
from tests.support.unreadable_ledgers import whole
from tests.support.world import Version, World


def started(path: Path) -> tuple[World, Controller]:
    """A release in its first step."""
    world = World(path, versions={"m:v1": Version(), "m:v2": Version()})
    controller = world.controller()
    controller.execute(SetStable("m:v1", "ann"))
    controller.execute(StartRelease("m:v2", RolloutSpec(steps=(5, 100)), "ann"))
    world.live(controller, 10)
    return world, controller


def read(path: Path) -> list[e.Event]:
    with closing(Ledger(path, read_only=True)) as ledger:
        return list(ledger.events())


@pytest.mark.parametrize("left", ["with its log", "alone"])
def test_a_deleted_ledger_is_put_back(tmp_path: Path, left: str) -> None:
    """All events are in the new file, also what is decided from then on; the ledger itself says what happened."""
    path = tmp_path / "ledger.db"
    world, controller = started(path)
    before = read(path)
    for file in tmp_path.glob("ledger.db*" if left == "alone" else "ledger.db"):
        file.unlink()
    world.live(controller, 2)
    assert read(path)[: len(before)] == before
    assert controller.execute(RollbackNow("ann", "wrong answers")) == 1
    controller.close()
    kinds = [event.topic if isinstance(event, e.Noted) else event.kind for event in read(path)[len(before) :]]
    assert "ledger_put_back" in kinds
    assert kinds[-1] == "rolled_back"
    check(path)
    assert not list(tmp_path.glob("ledger-*"))
    again = world.controller()
    assert "m:v2" in again._deployment.quarantined
    again.close()


def test_a_ledger_that_was_replaced_is_put_back_and_the_other_is_kept(tmp_path: Path) -> None:
    """A copy goes into its place while the stack is down, by `kanaria ledger restore`, and in no other way."""
    path = tmp_path / "ledger.db"
    world, controller = started(path)
    before = read(path)
    whole(tmp_path / "other.db")
    other = (tmp_path / "other.db").read_bytes()
    (tmp_path / "other.db").rename(path)
    world.live(controller, 2)
    controller.close()
    assert read(path)[: len(before)] == before
    (aside,) = tmp_path.glob("ledger-replaced-*.db")
    assert aside.read_bytes() == other
    (note,) = [event for event in read(path) if isinstance(event, e.Noted) and event.topic == "ledger_put_back"]
    assert f"kept as {aside.name}" in note.text


def test_the_whole_state_folder_is_deleted(tmp_path: Path) -> None:
    """The ledger is back with its folder."""
    path = tmp_path / "state" / "ledger.db"
    path.parent.mkdir()
    world, controller = started(path)
    before = read(path)
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    world.live(controller, 2)
    controller.close()
    assert read(path)[: len(before)] == before


def test_a_ledger_that_cannot_be_put_back_is_a_trouble_until_it_can(small_disk: SmallDisk) -> None:
    """On a full disk the controller goes on with the open file, and says that nobody may stop it."""
    path = small_disk.folder / "ledger.db"
    world, controller = started(path)
    before = read(path)
    small_disk.fill()
    path.unlink()
    world.live(controller, 2)
    (trouble, *_) = controller.snapshot.troubles
    assert "cannot be put back" in trouble
    assert "do not stop the controller" in trouble
    assert controller._metrics.registry.get_sample_value("kanaria_ledger_gone") == 1
    release = controller.snapshot.deployment.active
    assert release
    small_disk.free()
    world.live(controller, 12)
    assert controller._metrics.registry.get_sample_value("kanaria_ledger_gone") == 0
    assert "cannot be put back" not in "".join(controller.snapshot.troubles)
    controller.close()
    assert read(path)[: len(before)] == before


def test_a_ledger_in_its_place_is_left_alone(tmp_path: Path) -> None:
    """The same file stays, whatever is written to it."""
    path = tmp_path / "ledger.db"
    world, controller = started(path)
    file = path.stat().st_ino
    world.live(controller, 20)
    controller.close()
    assert path.stat().st_ino == file
    assert not [event for event in read(path) if isinstance(event, e.Noted) and event.topic == "ledger_put_back"]
