"""A release of two versions that were compared before starts with the evidence of that comparison."""

import math
from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.explain.timeline import Timeline, timeline
from rollout.explain.why import why
from rollout.judge import Verdict
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.signals.options import Errors
from rollout.signals.plan import Signals
from rollout.spec import RolloutSpec
from rollout.ui.status import build_status
from tests.support.world import Version, World

SPEC = RolloutSpec(steps=(10, 50, 100), soak=5, window=2, step_deadline=3000, holdback=0, watch=20, risk_budget=0.02)


@pytest.fixture
def world(tmp_path: Path) -> World:
    versions = {"m:v1": Version(error_ratio=0.01), "m:v2": Version(error_ratio=0.06), "m:v3": Version()}
    return World(tmp_path / "ledger.db", versions=versions, rps=30)


def aborted(world: World, spec: RolloutSpec = SPEC) -> Controller:
    """A person stopped v2's release when its evidence was between 20 and 100."""
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 60)
    controller.execute(c.StartRelease("m:v2", spec, "ann"))
    for _ in range(2000):
        world.live(controller, 0.5)
        judgement = controller.snapshot.judgement
        if judgement and judgement.log_e > math.log(20):
            break
    assert judgement
    assert judgement.verdict is not Verdict.FAIL
    controller.execute(c.Abort("ann"))
    world.live_until_ended(controller)
    return controller


def events(world: World, number: int) -> list[e.Event]:
    ledger = Ledger(world.path, read_only=True)
    try:
        return list(ledger.of_release(number))
    finally:
        ledger.close()


def earlier(world: World, number: int) -> e.EarlierTry | None:
    requested = events(world, number)[0]
    assert isinstance(requested, e.ReleaseRequested)
    return requested.earlier


def ticks(world: World, number: int) -> list[e.Ticked]:
    return [event for event in events(world, number) if isinstance(event, e.Ticked)]


def story(world: World, number: int) -> Timeline:
    return timeline(events(world, number))


def test_a_try_that_only_warmed_up_keeps_the_earlier_evidence(world: World) -> None:
    """It is stopped before anything was judged; the next try has the same evidence."""
    controller = aborted(world)
    controller.execute(c.StartRelease("m:v2", SPEC.model_copy(update={"steps": ("shadow", 10, 50, 100)}), "ann"))
    world.live(controller, 20)
    assert controller.snapshot.deployment.active
    assert controller.snapshot.deployment.active.is_warming_up
    controller.execute(c.Abort("ann"))
    world.live_until_ended(controller)
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    controller.close()
    assert earlier(world, 2) is not None
    assert earlier(world, 3) == earlier(world, 2)


def test_an_aborted_version_keeps_its_evidence_in_the_next_try(world: World) -> None:
    """The next try starts with the evidence of the last one, says so, and finds the harm that persists."""
    controller = aborted(world)
    last = ticks(world, 1)[-1].evidence
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    assert world.live_until_ended(controller) == "rolled_back"
    controller.close()
    known = earlier(world, 2)
    assert known
    assert (known.release, known.log_e, known.has_failed) == (1, last.log_e, False)
    assert sum(map(math.exp, known.carried.values())) == pytest.approx(math.expm1(last.log_e), rel=0.05)
    assert ticks(world, 2)[0].evidence.log_e > math.log(5), "it includes the first window"
    words = f"starts with the evidence of release 1 against it: log e {last.log_e:.1f}, most of it from `errors`"
    assert f"This release {words}." in [line for topic in why(story(world, 2)).topics for line in topic.lines]
    assert story(world, 2).decisions[0].reason == words


def test_the_status_shows_the_carried_evidence(world: World) -> None:
    """People see why the release is suspicious from its first request."""
    controller = aborted(world)
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    world.live(controller, 4)
    view = build_status("here", controller.snapshot, story(world, 2))
    controller.close()
    assert view.release
    assert (view.release.earlier or "").startswith("starts with the evidence of release 1 against it: log e ")


def test_a_version_without_harm_any_more_is_promoted(world: World) -> None:
    """Good requests cancel the carried evidence."""
    controller = aborted(world)
    world.edit("m:v2", error_ratio=0.0)
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    assert world.live_until_ended(controller) == "promoted"
    controller.close()
    assert (earlier(world, 2) or e.EarlierTry(release=0, log_e=0)).carried
    assert ticks(world, 2)[-1].evidence.log_e < math.log(2)


def test_a_retry_after_a_fail_starts_without_evidence_and_says_so(world: World) -> None:
    """A person decided that the cause was elsewhere; the version can be promoted as if it had never failed."""
    world.edit("m:v2", error_ratio=0.3)
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 60)
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    assert world.live_until_ended(controller) == "rolled_back"
    world.edit("m:v2", error_ratio=0.01)
    controller.execute(c.StartRelease("m:v2", SPEC, "ann", retry=True))
    assert world.live_until_ended(controller) == "promoted"
    controller.close()
    known = earlier(world, 2)
    assert known
    assert (known.release, known.has_failed, known.carried) == (1, True, {})
    assert ticks(world, 2)[0].evidence.log_e < math.log(2)
    assert "starts without the evidence on which release 1 failed" in story(world, 2).decisions[0].reason


def test_evidence_outlives_a_try_that_never_started(world: World) -> None:
    """The evidence is about the two versions, and that try added nothing to it."""
    controller = aborted(world)
    world.edit("m:v2", starts_at_all=False)
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    assert world.live_until_ended(controller) == "rolled_back"
    world.edit("m:v2", starts_at_all=True)
    controller.execute(c.StartRelease("m:v2", SPEC, "ann", retry=True))
    controller.close()
    assert earlier(world, 2)
    assert earlier(world, 3) == earlier(world, 2)


@pytest.mark.parametrize(
    ("tag", "spec"),
    [("m:v3", SPEC), ("m:v2", SPEC.model_copy(update={"signals": Signals({"errors": Errors(tolerance=2)})}))],
    ids=["another version", "another tolerance"],
)
def test_evidence_about_something_else_is_not_carried(world: World, tag: str, spec: RolloutSpec) -> None:
    """The evidence was about these two versions and this definition of harmless."""
    controller = aborted(world)
    controller.execute(c.StartRelease(tag, spec, "ann"))
    controller.close()
    known = earlier(world, 2)
    assert known is None or "errors" not in known.carried


def test_a_killed_controller_continues_with_the_carried_evidence(world: World) -> None:
    """It replays the ledger, and every number of the evidence is the same."""
    controller = aborted(world)
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    while len(ticks(world, 2)) < 3:
        world.live(controller, 0.5)
    run = controller._run.judge
    assert run
    release = controller.snapshot.deployment.active
    assert release
    expected = run.judgement(release)
    controller.close()
    again = world.controller()
    assert again._run.judge
    assert again._run.judge.judgement(release) == expected
    again.close()


def test_evidence_survives_a_restart_of_the_controller_between_releases(world: World) -> None:
    """The next controller reads it from the ledger."""
    aborted(world).close()
    controller = world.controller()
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    controller.close()
    assert (earlier(world, 2) or e.EarlierTry(release=0, log_e=0)).carried


def tries(world: World, number: int) -> int:
    requested = events(world, number)[0]
    assert isinstance(requested, e.ReleaseRequested)
    return requested.tries


def test_each_further_try_needs_more_proof_and_all_together_spend_alpha() -> None:
    """Repeated tries do not get a version promoted by luck."""
    spent = [SPEC.judge_config(tries=number).alpha_pass for number in range(1, 2000)]
    assert spent[0] == SPEC.alpha
    assert sum(spent[1:]) == pytest.approx(SPEC.alpha, rel=1e-3)
    assert sum(spent) < 2 * SPEC.alpha


def test_a_try_counts_once_it_has_entered_a_step(world: World) -> None:
    """A try that was stopped earlier showed nothing. The count survives a restart of the controller."""
    controller = aborted(world)
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    controller.execute(c.Abort("ann"))
    world.live_until_ended(controller)
    controller.close()
    controller = world.controller()
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    world.live(controller, 4)
    controller.execute(c.Abort("ann"))
    world.live_until_ended(controller)
    controller.execute(c.StartRelease("m:v3", SPEC, "ann"))
    controller.execute(c.Abort("ann"))
    world.live_until_ended(controller)
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    controller.close()
    assert [tries(world, number) for number in (1, 2, 3, 4, 5)] == [1, 2, 2, 1, 3]


def test_the_proof_of_a_further_try_states_its_confidence(world: World) -> None:
    """The second try needs 99.5 % where the plan says 99 %."""
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 60)
    controller.execute(c.StartRelease("m:v3", SPEC, "ann"))
    world.live(controller, 4)
    controller.execute(c.Abort("ann"))
    world.live_until_ended(controller)
    controller.execute(c.StartRelease("m:v3", SPEC, "ann"))
    assert world.live_until_ended(controller) == "promoted"
    assert controller.snapshot.deployment.tries == {("m:v1", "m:v3"): 2}
    controller.close()
    assert any("99.5 % certain" in line for topic in why(story(world, 2)).topics for line in topic.lines)
