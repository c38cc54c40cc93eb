"""Which version answers in place of which, and which failures count against a version that does not answer."""

from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.fleet import Health
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Phase
from rollout.routers.router import Split
from rollout.spec import RolloutSpec
from tests.support.world import Version, World

SPEC = RolloutSpec(
    steps=("shadow", 50, 100),
    soak=5,
    warmup=0,
    window=2,
    step_deadline=300,
    holdback=0,
    watch=60,
    risk_budget=0.05,
    down_after=3600,
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


def live_until(world: World, controller: Controller, phase: Phase, weight: float) -> None:
    """Let time pass until the release is in `phase` with this weight."""
    for _ in range(600):
        release = controller.snapshot.deployment.active
        if release and (release.phase, release.weight_percent) == (phase, weight):
            return
        world.live(controller, 0.5)
    pytest.fail(f"never {phase} at {weight} %")


def newest(world: World) -> Split:
    return world.router.history[-1]


def begin(world: World, controller: Controller, phase: Phase, weight: float) -> None:
    """Start a release, and return once it is in `phase` with this weight and the gateway has its split."""
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    live_until(world, controller, phase, weight)
    world.live(controller, 2)


def test_the_old_version_is_the_fallback_of_the_promoted_one_only_during_the_watch(
    world: World, controller: Controller
) -> None:
    """It answers what the promoted version cannot. After the watch it leaves the split, and then it is stopped."""
    begin(world, controller, Phase.WATCHING, 100)
    split = newest(world)
    assert (split.stable.tag, split.canary, split.fallback and split.fallback.tag) == ("m:v2", None, "m:v1")
    assert world.live_until_ended(controller) == "promoted"
    world.live(controller, 5)
    assert newest(world).fallback is None
    assert world.running() == ("m:v2",)


def test_a_promoted_version_needs_no_fallback_to_keep_its_traffic(world: World, controller: Controller) -> None:
    """The old version is gone; the promoted one still gets all requests."""
    begin(world, controller, Phase.STEPPING, 100)
    world.edit("m:v1", health=Health.ABSENT, starts_at_all=False)
    live_until(world, controller, Phase.WATCHING, 100)
    world.live(controller, 2)
    assert newest(world).stable.tag == "m:v2"


def test_a_controller_restarted_in_the_watch_keeps_the_split_in_force(world: World, controller: Controller) -> None:
    """It neither applies the split again nor restarts its counts: requests counted meanwhile are evidence."""
    begin(world, controller, Phase.WATCHING, 100)
    applied, changes = [event for event in events(world) if isinstance(event, e.Applied)], len(world.router.history)
    controller.close()
    second = world.controller()
    world.live(second, 4)
    assert [event for event in events(world) if isinstance(event, e.Applied)] == applied
    assert len(world.router.history) == changes
    second.close()


@pytest.mark.parametrize(
    ("phase", "weight"),
    [(Phase.STEPPING, 50), (Phase.WATCHING, 100)],
    ids=["at 50 %", "promoted"],
)
def test_requests_that_the_fallback_answered_count_as_failures(
    world: World, controller: Controller, phase: Phase, weight: float
) -> None:
    """Users saw nothing and `down_after` is far away, but each request that the fallback answered is a failure."""
    begin(world, controller, phase, weight)
    world.edit("m:v2", hangs=True)
    assert world.live_until_ended(controller, limit_s=120) == "rolled_back"
    (rolled_back,) = [event for event in events(world) if isinstance(event, e.RolledBack)]
    assert rolled_back.signal in {"errors", "guard", "watched_errors"}


@pytest.mark.parametrize(
    ("away_s", "back_s", "outcome"),
    [(2, 2, "rolled_back"), (2, 8, "rolled_back"), (2, 100, "promoted")],
    ids=["half of the time", "a fifth of the time", "now and then"],
)
def test_a_canary_that_is_intermittently_down_is_rolled_back(
    world: World, controller: Controller, away_s: float, back_s: float, outcome: str
) -> None:
    """Each outage is much shorter than `down_after`, and users notice none."""
    controller.execute(c.StartRelease("m:v2", SPEC.model_copy(update={"down_after": 10.0, "soak": 200}), "ann"))
    live_until(world, controller, Phase.STEPPING, 50)
    while controller.snapshot.deployment.active is not None:
        for health, lasts_s in ((Health.UNREADY, away_s), (Health.READY, back_s)):
            if world.versions["m:v2"].health in {Health.READY, Health.UNREADY}:
                world.edit("m:v2", health=health)
            world.live(controller, lasts_s)
    release = controller.snapshot.deployment.release
    assert release is not None
    assert release.outcome == outcome


def test_a_canary_that_loads_after_a_reboot_is_not_down(world: World, controller: Controller) -> None:
    """`startup_deadline` limits its loading; afterwards it may miss a probe like any other version."""
    controller.execute(c.StartRelease("m:v2", SPEC.model_copy(update={"down_after": 10.0}), "ann"))
    live_until(world, controller, Phase.STEPPING, 50)
    world.edit("m:v2", health=Health.STARTING, ready_s=world.steady_s + 60)
    world.live(controller, 61)
    world.edit("m:v2", health=Health.UNREADY)
    world.live(controller, 2)
    world.edit("m:v2", health=Health.READY)
    assert world.live_until_ended(controller) == "promoted"


def test_an_outage_of_stable_is_not_evidence_about_the_canary(world: World, controller: Controller) -> None:
    """Stable is away while the canary has half of the traffic: nothing is counted for or against either version."""
    begin(world, controller, Phase.STEPPING, 50)
    world.edit("m:v1", health=Health.UNREADY)
    world.live(controller, 20)
    ticks = [event for event in events(world) if isinstance(event, e.Ticked)][-3:]
    errors = [window for tick in ticks for window in tick.windows if window.signal == "errors"]
    assert errors
    assert {(window.stable.bad, window.canary.bad) for window in errors} == {(0, 0)}


@pytest.mark.parametrize(("tag", "outcome"), [("m:v2", "rolled_back"), ("m:v1", "promoted")])
def test_only_the_canarys_own_ended_workers_count_against_it(
    world: World, controller: Controller, tag: str, outcome: str
) -> None:
    """Workers end and are replaced without losing a request. The status shows this for both versions."""
    begin(world, controller, Phase.STEPPING, 0)
    world.edit(tag, restarts=1)
    world.live(controller, 0.5)
    assert controller.snapshot.restarts[tag] == 1
    world.edit(tag, restarts=2)
    assert world.live_until_ended(controller) == outcome
