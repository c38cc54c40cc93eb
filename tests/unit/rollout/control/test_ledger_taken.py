"""A controller whose ledger another controller has taken stops acting."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from rollout.control.commands import SetStable, StartRelease
from rollout.errors import LedgerTaken
from rollout.fleet import Backend
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.signals.counters import Reading
from rollout.signals.custom import OwnCounter
from rollout.spec import RolloutSpec
from tests.support.world import Version, World


class ContestedWorld(World):
    """A world in which another controller writes to the ledger at each reading of the counters."""

    def read(
        self, backends: tuple[Backend, ...], *, mirrored: str | None = None, own: Sequence[OwnCounter] = ()
    ) -> Reading:
        other = Ledger(self.path)
        other.append(e.Noted(at_s=self.now_s, topic="controller_started", text="another one"))
        other.close()
        return super().read(backends, mirrored=mirrored, own=own)


def test_a_controller_ends_when_another_one_wrote_to_its_ledger(tmp_path: Path) -> None:
    """It would shift traffic by an outdated state. It ends, and the next one reads the ledger again."""
    path, versions = tmp_path / "ledger.db", {"m:v1": Version(), "m:v2": Version()}
    world = World(path, versions=versions)
    controller = world.controller()
    controller.execute(SetStable("m:v1", "ann"))
    controller.execute(StartRelease("m:v2", RolloutSpec(steps=(5, 100)), "ann"))
    world.live(controller, 20)
    controller.close()
    split = world.router.observed()
    assert split
    assert split.canary == "m:v2"
    shared = ContestedWorld(path, versions=versions, now_s=world.now_s + 20, router=world.router)
    shared.counters.update(world.counters)
    with pytest.raises(LedgerTaken, match="another process writes this ledger"):
        shared.unstarted_controller().run()
    assert world.router.observed() == split
