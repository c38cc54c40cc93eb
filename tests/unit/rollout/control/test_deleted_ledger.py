"""A ledger whose file is deleted or replaced while the controller runs loses nothing."""

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
    """The new file has all events and all later decisions; the ledger itself records what happened."""
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


def test_a_replaced_ledger_is_put_back_and_the_other_file_is_kept(tmp_path: Path) -> None:
    """Only `kanaria ledger restore`, while the stack is down, may put a copy in place of the ledger."""
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


def test_a_deleted_state_folder_is_made_again_with_the_ledger(tmp_path: Path) -> None:
    """Both the folder and its ledger are there again."""
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


def test_a_ledger_that_cannot_be_put_back_is_reported_until_it_can(small_disk: SmallDisk) -> None:
    """On a full disk the controller continues with the open file, and warns against stopping it."""
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


def test_a_ledger_that_is_still_in_its_place_is_not_replaced(tmp_path: Path) -> None:
    """Its file stays the same after a write."""
    path = tmp_path / "ledger.db"
    world, controller = started(path)
    file = path.stat().st_ino
    world.live(controller, 20)
    controller.close()
    assert path.stat().st_ino == file
    assert not [event for event in read(path) if isinstance(event, e.Noted) and event.topic == "ledger_put_back"]
