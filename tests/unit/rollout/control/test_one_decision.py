"""Each measurement leads to one decision, and both are written to the ledger together."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.control.timing import IDLE_BEAT_S
from rollout.fleet import Health
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.spec import RolloutSpec
from tests.support.world import Version, World

SPEC = RolloutSpec(
    steps=(5, 50, 100),
    soak=5,
    window=2,
    step_deadline=60,
    holdback=0,
    watch=10,
    risk_budget=0.02,
    on_deadline="rollback",
)
DECISIONS = {"EnterStep": "step_entered", "Promote": "promoted", "Rollback": "rolled_back", "EndWatch": "ended"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ledger.db", versions={f"m:v{number}": Version() for number in (1, 2, 3)})


def written_together(controller: Controller) -> list[list[e.Event]]:
    """The events of each write to the ledger, from now on."""
    append, found = controller._ledger.append, []

    def kept(*events: e.Event, **more: Any) -> None:
        append(*events, **more)
        found.append(list(events))

    controller._ledger.append = kept  # type: ignore[method-assign]
    return found


@pytest.mark.parametrize(("rps", "last"), [(100.0, "promoted"), (0.4, "rolled_back")])
def test_a_tick_and_its_decision_are_one_write(world: World, controller: Controller, rps: float, last: str) -> None:
    """A kill of the controller leaves no tick without its decision, not even at a deadline."""
    world.rps = rps
    writes = written_together(controller)
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    assert world.live_until_ended(controller) == last
    ticks = 0
    for events in writes:
        for tick in (event for event in events if isinstance(event, e.Ticked)):
            ticks += 1
            decided = [event.kind for event in events if event.kind in DECISIONS.values()]
            assert decided == [DECISIONS[tick.action]] if tick.action != "Hold" else decided == []
    assert ticks > 5


def test_a_decision_from_evidence_follows_its_tick(world: World, controller: Controller) -> None:
    """Every step after the first, the promotion and the rollback follow the tick that they rest on."""
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    assert world.live_until_ended(controller) == "promoted"
    ledger = Ledger(world.path, read_only=True)
    story = [event for event in ledger.events(release=1) if not isinstance(event, e.Applied)]
    ledger.close()
    earned = [
        (before, event)
        for before, event in pairwise(story)
        if isinstance(event, e.Promoted) or (isinstance(event, e.StepEntered) and event.step > 0)
    ]
    assert len(earned) == len(SPEC.steps)
    for before, event in earned:
        assert isinstance(before, e.Ticked)
        assert before.why == event.reason
        assert before.evidence == event.evidence


def test_a_new_release_does_not_inherit_the_last_canarys_downtime(world: World, controller: Controller) -> None:
    """The last canary went down ten minutes ago; the new one misses probes for a moment and keeps its traffic."""
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    world.live(controller, 10)
    world.edit("m:v2", health=Health.UNREADY)
    assert world.live_until_ended(controller) == "rolled_back"
    world.live(controller, 600, beat_s=IDLE_BEAT_S)
    controller.execute(c.StartRelease("m:v3", SPEC.model_copy(update={"down_after": 30.0}), "ann"))
    while world.status("m:v3").health is not Health.READY or not world.router.history[-1].canary:
        world.live(controller, 0.5)
    world.edit("m:v3", health=Health.UNREADY)
    world.live(controller, 5)
    world.edit("m:v3", health=Health.READY)
    assert world.live_until_ended(controller) == "promoted"


def test_reading_the_facts_changes_nothing(world: World, controller: Controller) -> None:
    """Facts may be gathered any number of times; reading them does not set when a canary went down."""
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    world.live(controller, 10)
    release = controller.snapshot.deployment.active
    assert release
    world.edit("m:v2", health=Health.UNREADY)
    first = controller._facts(release, world.now_s, is_fresh=False)
    later = controller._facts(release, world.now_s + 100, is_fresh=False)
    assert (first.canary_unready_s, later.canary_unready_s) == (0.0, 0.0)
