"""What the judge of a release knows about stable from before the release, and what it still knows after a restart."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.control.release_judge import ReleaseJudge, replayed
from rollout.judge import Pair, Verdict, Window
from rollout.judge.judge import Judge
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Phase, fold
from rollout.spec import RiskBudget, RolloutSpec
from tests.support.world import Version, World

SPEC = RolloutSpec(steps=(5, 50, 100), soak=5, window=2, step_deadline=300, holdback=0, watch=60, risk_budget=0.02)


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
    """Stable's failures before a release, from the ledger."""
    (calibrated,) = [event for event in events(world, release) if isinstance(event, e.Calibrated)]
    return calibrated.stable_errors


def test_a_replay_of_the_ledger_gives_the_identical_judgement(world: World, controller: Controller) -> None:
    """After a restart within a step every number is the same, including the bound that uses stable's history."""
    controller.execute(c.StartRelease("m:v2", SPEC.model_copy(update={"risk_budget": RiskBudget(share=0.001)}), "ann"))
    world.live(controller, 60)
    so_far = events(world, 1)
    judge, release = replayed(so_far), fold(so_far).release
    assert judge
    assert release
    assert release.phase is Phase.STEPPING
    (*_, last) = (event for event in so_far if isinstance(event, e.Ticked))
    judgement = judge.judgement(release)
    assert judgement
    assert judgement == last.evidence
    assert known(world, 1).bad > 0


def test_a_replay_of_the_ledger_gives_the_identical_judgement_of_a_watch(world: World, controller: Controller) -> None:
    """A controller that is killed after promotion does not restart its counts at 0."""
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
    assert judgement == last.evidence
    assert last.evidence.signals["watched_errors"].canary.total > 20 * world.rps


def test_the_judge_is_notified_of_each_change_of_weight(world: World, controller: Controller) -> None:
    """The evidence in the ledger equals that of a judge notified of every step, and not that of one without."""
    plan = SPEC.model_copy(update={"steps": ("shadow", 5, 25, 50, 100), "warmup": 0.0})
    controller.execute(c.StartRelease("m:v2", plan, "ann"))
    world.live(controller, 60)
    judges: dict[str, Judge] = {}
    log_e: dict[str, list[float]] = {"in the ledger": [], "told": [], "not told": []}
    for event in events(world, 1):
        match event:
            case e.Calibrated():
                judges = {name: Judge(plan.judge_config(), event.noise or {}) for name in ("told", "not told")}
            case e.StepEntered():
                judges["told"].weight_changed()
            case e.Ticked(weight_percent=weight) if weight < 100:
                log_e["in the ledger"].append(event.evidence.log_e)
                for name, judge in judges.items():
                    judge.observe(event.windows)
                    log_e[name].append(judge.judgement(next_weight=None).log_e)
    assert log_e["in the ledger"] == log_e["told"]
    assert log_e["told"] != log_e["not told"]
    assert log_e["told"][:3] == log_e["not told"][:3]  # in the shadow, before the first change


def bad_windows_to_fail(*, returns: bool) -> int:
    """Windows with 12 % errors until FAIL, after an hour at 100 % of traffic with 1 % errors.

    If `returns`, the weight was 50 % for one window and 100 % again just before the errors rose.
    """
    plan = SPEC.model_copy(update={"window": 5.0})
    requested = e.ReleaseRequested(at_s=0.0, release=1, tag="m:v2", stable="m:v1", spec=plan, by="ann")
    known = e.Calibrated(at_s=0.0, release=1, phi={}, history_s=1800.0, stable_errors=Pair(1000, 100_000))
    release = fold([e.StableSet(at_s=0.0, tag="m:v1"), requested, known]).release
    assert release
    alone = replace(release, phase=Phase.STEPPING, weight_percent=100)
    judge, nothing = ReleaseJudge(release), Pair(0, 0)
    ends_s = itertools.count(5.0, 5.0)
    for _ in range(720):
        judge.observe(alone, [Window(next(ends_s), 5.0, "errors", nothing, Pair(1, 100))])
    if returns:
        half = Window(next(ends_s), 5.0, "errors", Pair(1, 50), Pair(0, 50))
        judge.observe(replace(alone, weight_percent=50), [half])
    for bad in range(1, 100):
        judge.observe(alone, [Window(next(ends_s), 5.0, "errors", nothing, Pair(12, 100))])
        judgement = judge.judgement(alone)
        if judgement and judgement.verdict is Verdict.FAIL:
            return bad
    pytest.fail("no FAIL")


def test_the_watch_restarts_when_the_canary_gets_all_traffic_again() -> None:
    """Harm that begins with the full load is found sooner than harm at another time."""
    assert bad_windows_to_fail(returns=True) < bad_windows_to_fail(returns=False)


def test_nothing_is_judged_before_calibration() -> None:
    """A controller that was killed while the canary started has no judge yet."""
    requested = e.ReleaseRequested(at_s=1.0, release=1, tag="m:v2", stable="m:v1", spec=SPEC, by="ann")
    assert replayed([requested]) is None


def test_failures_of_the_previous_version_do_not_count_for_its_successor(world: World, controller: Controller) -> None:
    """v1 failed 1 %. v2, promoted, never fails, so v3 is compared with no failures; v2's watch counts too."""
    world.edit("m:v2", error_ratio=0.0)
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    assert world.live_until_ended(controller) == "promoted"
    controller.execute(c.StartRelease("m:v3", SPEC, "ann"))
    world.live(controller, 10)
    of_v1, of_v2 = known(world, 1), known(world, 2)
    assert of_v1.bad > 0
    assert of_v2.bad == 0
    assert of_v2.total > 50 * world.rps


def test_counts_of_a_rolled_back_version_are_dropped(world: World, controller: Controller) -> None:
    """v2 was promoted, failed and was rolled back: the next release knows only v1's counts since then."""
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
