"""What a release's judge knows: of stable before the release, and of itself after a restart."""

from pathlib import Path

import pytest

from rollout import commands as c
from rollout import events as e
from rollout.controller import Controller
from rollout.judge import Pair
from rollout.records import evidence_record
from rollout.release_judge import replayed
from rollout.spec import RolloutSpec
from rollout.state import Phase, fold
from rollout.store import Ledger
from tests.world import Version, World

SPEC = RolloutSpec(steps=(5, 50, 100), soak=5, window=2, step_deadline=300, watch=60, risk_budget=0.02)


@pytest.fixture
def world(tmp_path: Path) -> World:
    versions = {f"m:v{number}": Version(error_ratio=0.01) for number in (1, 2, 3)}
    return World(tmp_path / "ledger.db", versions=versions)


def events(world: World, release: int) -> list[e.Event]:
    ledger = Ledger(world.path, read_only=True)
    try:
        return list(ledger.events(release=release))
    finally:
        ledger.close()


def known(world: World, release: int) -> Pair:
    """What the ledger says that stable failed before a release."""
    (calibrated,) = [event for event in events(world, release) if isinstance(event, e.Calibrated)]
    return Pair(*calibrated.stable_errors)


def test_the_ledger_gives_the_identical_judgement(world: World, controller: Controller) -> None:
    """After a restart, in the middle of a step: every number of it, the bound that rests on stable's history too."""
    controller.execute(c.StartRelease("m:v2", SPEC.model_copy(update={"risk_budget": 0.001}), "ann"))
    world.live(controller, 60)
    so_far = events(world, 1)
    judge, release = replayed(so_far), fold(so_far).release
    assert judge
    assert release
    assert release.phase is Phase.STEPPING
    (*_, last) = (event for event in so_far if isinstance(event, e.Ticked))
    judgement = judge.judgement(release)
    assert judgement
    assert evidence_record(judgement) == last.evidence
    assert known(world, 1).bad > 0


def test_the_ledger_gives_the_identical_judgement_of_a_watch(world: World, controller: Controller) -> None:
    """A controller that is killed after promotion does not begin to count anew."""
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    while controller.snapshot.deployment.stable != "m:v2":
        world.live(controller, 1)
    world.edit("m:v2", error_ratio=0.04)
    world.live(controller, 30)
    so_far = events(world, 1)
    judge, release = replayed(so_far), fold(so_far).release
    assert judge
    assert release
    assert release.phase is Phase.WATCHING
    (*_, last) = (event for event in so_far if isinstance(event, e.Ticked))
    judgement = judge.judgement(release)
    assert judgement
    assert evidence_record(judgement) == last.evidence
    assert last.evidence.signals["watched_errors"].canary[1] > 20 * world.rps


def test_before_it_is_calibrated_nothing_is_judged() -> None:
    """A controller that was killed while the canary started opens its judge anew."""
    requested = e.ReleaseRequested(at_s=1.0, release=1, tag="m:v2", stable="m:v1", spec=SPEC, by="ann")
    assert replayed([requested]) is None


def test_what_the_version_before_failed_is_not_known_of_its_successor(world: World, controller: Controller) -> None:
    """v1 failed 1 %; v2, promoted, fails nothing, and that is what v3 is compared with. Its watch counts too."""
    world.edit("m:v2", error_ratio=0.0)
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    assert world.live_until_ended(controller) == "promoted"
    controller.execute(c.StartRelease("m:v3", SPEC, "ann"))
    world.live(controller, 10)
    of_v1, of_v2 = known(world, 1), known(world, 2)
    assert of_v1.bad > 0
    assert of_v2.bad == 0
    assert of_v2.total > 50 * world.rps


def test_a_version_that_was_taken_back_leaves_nothing_behind(world: World, controller: Controller) -> None:
    """v2 was promoted, failed and was rolled back: the next release knows of v1 what it did since."""
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    while controller.snapshot.deployment.stable != "m:v2":
        world.live(controller, 1)
    world.edit("m:v2", error_ratio=0.5)
    world.edit("m:v1", error_ratio=0.0)
    assert world.live_until_ended(controller) == "rolled_back"
    world.live(controller, 20)
    controller.execute(c.StartRelease("m:v3", SPEC, "ann"))
    world.live(controller, 10)
    assert known(world, 2).bad == 0
