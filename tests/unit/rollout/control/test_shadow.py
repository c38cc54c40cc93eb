"""In the shadow every request is evidence: a canary stays there while that is the fastest way to its proof."""

import math
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.control.decide import EnterStep, Facts, Hold, Rollback, decide
from rollout.control.release_judge import ReleaseJudge, replayed
from rollout.control.shadow import Ahead, ahead
from rollout.explain.timeline import Timeline, timeline
from rollout.explain.why import one_sentence
from rollout.fleet import Health
from rollout.judge import Judgement, OwnNoise, Pair, SignalJudgement, Verdict, Window
from rollout.judge.bound import ExcessBound
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Phase, Release
from rollout.simulate.release import Run, simulate_release
from rollout.simulate.traffic import Behaviour, Scenario, Traffic
from rollout.spec import RolloutSpec
from rollout.ui.status import build_status
from tests.support.world import Version, World

PLAN = RolloutSpec()
ERRORS_ONLY = PLAN.model_copy(update={"signals": PLAN.signals.only("errors")})
WELL = Behaviour(0.005)
FEW = Scenario(2.0, WELL, WELL)
INF = math.inf


def shadow(spec: RolloutSpec = PLAN, **more: object) -> Release:
    """A release that has been in the shadow for an hour."""
    base = Release(
        number=1,
        canary="m:v2",
        stable="m:v1",
        spec=spec,
        requested_s=0.0,
        by="ann",
        phase=Phase.STEPPING,
        step=0,
        mirror=True,
        warmed_s=60.0,
        measured_s=3600.0,
        seen_s=3600.0,
    )
    return replace(base, **more)  # type: ignore[arg-type]


def judged(*needed: float, per_s: float = 2.0, verdict: Verdict = Verdict.PASS) -> Judgement:
    errors = SignalJudgement(
        verdict=verdict,
        log_e=0.0,
        threshold=5.0,
        stable=Pair(0, 1000),
        canary=Pair(0, 1000),
        excess_upper=0.005,
        canary_per_s=per_s,
    )
    return Judgement(verdict, "because", 0.0, 4.6, {"errors": errors}, later_needed=needed)


def facts(*, unseen_s: float = 0.0) -> Facts:
    return Facts(
        in_phase_s=3600.0,
        unseen_s=unseen_s,
        canary=Health.READY,
        stable=Health.READY,
        has_crashed=False,
        canary_unready_s=0.0,
        detail="",
        is_measured=True,
        is_fresh=True,
        recent_canary=Pair(0, 60),
        recent_stable=Pair(0, 60),
    )


def seen(spec: RolloutSpec, judgement: Judgement) -> Ahead:
    found = ahead(shadow(spec), judgement)
    assert found is not None
    return found


# ---- the rule


def test_the_canary_stays_while_a_step_would_wait_for_proof() -> None:
    """Every request is evidence there, so the deadline of a step does not end the shadow."""
    action = decide(shadow(), facts(), judged(0, 0, 0, 100, 3400))
    assert isinstance(action, Hold)
    assert (action.needs_person, "about 3,300 more copied requests" in action.reason) == (False, True)


def test_the_canary_leaves_when_the_soaks_of_the_steps_bring_the_missing_proof() -> None:
    """With many requests the rest comes while the steps soak, so the shadow gets no longer than before."""
    missing = judged(0, 0, 0, 0, 4000, per_s=100.0)  # 1 + 5 + 25 + 50 of 100 requests a second, a minute each: 4,860
    assert decide(shadow(), facts(), missing) == EnterStep(1, 1, mirror=False, reason="because")


def test_the_first_step_is_the_smallest_with_a_request_in_each_window() -> None:
    """At 2 requests a second a window of 5 s holds 0.1 requests at 1 %, 0.5 at 5 % and 2.5 at 25 %."""
    action = decide(shadow(), facts(), judged(0, 0, 0, 0, 0))
    assert isinstance(action, EnterStep)
    assert (action.step, action.weight_percent) == (3, 25)
    assert "0.13 % of requests would be harmed at 25 %" in action.reason
    assert "1 % and 5 % left out: too few requests for a window at that weight" in action.reason


@pytest.mark.parametrize(
    ("steps", "per_s", "step"),
    [
        ((1, 5, 25, 50, 100), 20.0, 1),
        ((1, 5, 25, 50, 100), 0.01, 4),  # no step has a request per window: the last step that compares both
        ((1, 100), 0.01, 1),
        ((100,), 0.01, 1),
        ((1, 5, 25, 50, 100), 1e6, 1),
        ((1, 5, 25, 50, 100), 0.0, 4),
    ],
)
def test_the_step_to_enter_by_the_rate_of_requests(steps: tuple[int, ...], per_s: float, step: int) -> None:
    """It never goes to 100 % at once if a smaller step is in the plan."""
    spec = PLAN.model_copy(update={"steps": ("shadow", *steps)})
    assert seen(spec, judged(*(0 for _ in steps), per_s=per_s)).step == step


def test_steps_that_can_never_be_proven_do_not_prolong_the_shadow() -> None:
    """The release goes as far as it can and asks a person there, as before."""
    found = seen(PLAN, judged(0, 0, 0, 0, INF))
    assert (found.more, found.proven_percent) == (0, 50)
    assert isinstance(decide(shadow(), facts(), judged(0, 0, 0, 0, INF)), EnterStep)
    assert ahead(shadow(), judged(INF, INF, INF, INF, INF)) is None


def test_a_too_small_step_is_entered_if_no_larger_one_can_be_proven() -> None:
    """A small proven step is better than a large unproven one."""
    assert seen(PLAN, judged(0, INF, INF, INF, INF)).step == 1


@pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.NO_DATA])
def test_missing_proof_that_requests_cannot_bring_asks_a_person_at_the_deadline(verdict: Verdict) -> None:
    """This concerns a suspicious canary and answers that cannot be compared."""
    action = decide(shadow(), facts(), judged(0, 0, 0, 0, 3400, verdict=verdict))
    assert isinstance(action, Hold)
    assert action.needs_person


def test_traffic_that_stops_asks_a_person_at_the_deadline() -> None:
    """No request came for as long as a step may wait: a person is asked, or the release is given up."""
    stopped = facts(unseen_s=PLAN.step_deadline)
    action = decide(shadow(), stopped, judged(0, 0, 0, 0, 3400, per_s=0.0))
    assert isinstance(action, Hold)
    assert (action.needs_person, "none came for 600 s" in action.reason) == (True, True)
    impatient = shadow(PLAN.model_copy(update={"on_deadline": "rollback"}))
    assert isinstance(decide(impatient, stopped, judged(0, 0, 0, 0, 3400, per_s=0.0)), Rollback)


def test_the_rule_does_not_apply_outside_the_shadow() -> None:
    """A step has its share of the requests, whatever other steps are left out."""
    live = shadow(step=1, mirror=False, weight_percent=1)
    assert ahead(live, judged(0, 0, 0, 0)) is None
    assert decide(live, facts(), judged()) == EnterStep(2, 5, mirror=False, reason="because")
    assert ahead(shadow(PLAN.model_copy(update={"steps": "auto"})), judged()) is None


# ---- why it is the fastest way


@pytest.mark.parametrize("bursts", [1.0, 4.0, 100.0])
def test_the_shadow_earns_proof_about_twice_as_fast_as_any_step(bursts: float) -> None:
    """This is the judge's own forecast, for each share, base rate and noise; less where millions are needed."""
    noise = OwnNoise(clusters=1.0, bursts=bursts, blips=bursts)
    for base, excess, weight in product((0, 1e-3, 5e-3, 1e-2, 5e-2), (0.005, 0.01, 0.1), (0.01, 0.05, 0.25, 0.5)):
        bound = ExcessBound(0.01, noise=noise)
        bad = round(2000 * base)
        bound.observe(Pair(bad, 2000), Pair(bad, 2000))  # a window of the shadow
        in_shadow = bound.more_needed(excess, weight=0.5)
        at_step = bound.more_needed(excess, weight=weight) / weight
        assert at_step >= 1.8 * in_shadow or in_shadow == at_step == math.inf


def test_leaving_late_enough_is_never_slower_than_leaving_at_once() -> None:
    """For every combination of missing requests: the shadow and then the soaks, against the steps alone."""
    for needed in product((0, 50), (0, 500), (400, 3000), (3000, INF), (9000, INF)):
        if any(a > b for a, b in pairwise(needed)):
            continue
        for per_s in (0.01, 2.0, 20.0, 100.0, 1000.0):
            found = seen(PLAN, judged(*needed, per_s=per_s))
            proven = [more for more in needed if math.isfinite(more)]
            soaks_s = (len(proven) - found.step + 1) * PLAN.soak
            assert found.eta_s + soaks_s <= found.by_steps_s + 1e-6


# ---- releases


def few(scenario: Scenario = FEW, spec: RolloutSpec = ERRORS_ONLY, seed: int = 1) -> Run:
    return simulate_release(spec, scenario, seed)


def test_two_requests_a_second_are_enough_for_a_promotion_within_an_hour() -> None:
    """With 0.5 % errors and the default plan, the steps alone take more than two hours."""
    took_s = sorted(few(seed=seed).stopped_s for seed in range(5))
    assert took_s[2] < 3600


def test_nobody_is_asked_while_the_shadow_earns_proof() -> None:
    """At one request in ten seconds this takes hours, and the release says so."""
    run = few(replace(FEW, rps=0.1, stable=Behaviour(), canary=Behaviour()))
    assert run.live_s is not None
    assert run.promoted_s is not None
    assert 3 * 3600 < run.live_s < run.promoted_s < 4 * 3600
    assert run.asked_s is None or run.asked_s > run.promoted_s  # the watch has its own rule


def test_a_bad_canary_with_little_traffic_harms_no_user() -> None:
    """Copies show what otherwise the step at 25 % would show."""
    run = few(replace(FEW, canary=Behaviour(0.1)))
    assert (run.outcome, run.harmed) == ("rolled_back", 0.0)


@pytest.mark.parametrize("steps", [("shadow", 100), ("shadow", 50, 100)])
def test_a_plan_with_few_steps_is_proven_in_the_shadow(steps: tuple[str | int, ...]) -> None:
    """A single step gets all its proof from copies; its deadline no longer ends the release."""
    run = few(spec=ERRORS_ONLY.model_copy(update={"steps": steps}))
    assert (run.outcome, run.asked_s) == ("promoted", None)


def test_a_plan_without_a_shadow_goes_step_by_step() -> None:
    """There are no copies to learn from, so with little traffic a person is asked."""
    run = few(spec=ERRORS_ONLY.model_copy(update={"steps": (1, 5, 25, 50, 100)}))
    assert run.asked_s is not None


class _Changing(Traffic):
    """Traffic whose rate changes at a given time; both rates are factors of the scenario's."""

    def __init__(self, scenario: Scenario, *, before: float, at_s: float, after: float) -> None:
        super().__init__(scenario, 1)
        self._whole, self._factors_at, self._changes_s = scenario, (before, after), at_s

    def skip(self, seconds: float) -> None:
        super().skip(seconds)
        factor = self._factors_at[self.elapsed_s >= self._changes_s]
        self.scenario = replace(self._whole, rps=factor * self._whole.rps)

    def window(
        self, weight: float, *, mirror: bool = False, seconds: float | None = None, compare: float = 0.0
    ) -> tuple[Window, ...]:
        self.skip(0.0)
        return super().window(weight, mirror=mirror, seconds=seconds, compare=compare)


@pytest.mark.parametrize(
    ("before", "at_s", "after", "is_asked"),
    [
        (1e-9, 300.0, 1.0, False),  # starts late
        (1e-9, 1200.0, 1.0, True),  # starts later than a step may wait
        (1.0, 300.0, 0.1, False),  # falls to a tenth
        (1.0, 300.0, 1e-9, True),  # ends
        (1e-9, 1e9, 1.0, True),  # never starts
    ],
)
def test_traffic_that_starts_changes_or_ends(before: float, at_s: float, after: float, is_asked: bool) -> None:
    """The release continues when requests come, and a person is asked if none come."""
    well = replace(FEW, stable=Behaviour(), canary=Behaviour())
    traffic = _Changing(well, before=before, at_s=at_s, after=after)
    run = simulate_release(ERRORS_ONLY, well, 1, patience_s=6 * 3600, traffic=traffic, until_s=10 * 3600)
    assert (run.asked_s is not None) == is_asked
    assert (run.outcome == "promoted") == (after > 1e-6 and before + at_s < 1e6)


# ---- the real controller


QUICK = RolloutSpec(soak=5, window=2, warmup=0, holdback=0, watch=4, step_deadline=20)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ledger.db", rps=8.0, versions={"m:v1": Version(0.0), "m:v2": Version(0.0)})


def release_events(world: World) -> list[e.Event]:
    ledger = Ledger(world.path, read_only=True)
    try:
        return list(ledger.events(release=1))
    finally:
        ledger.close()


def story(world: World) -> Timeline:
    return timeline(release_events(world))


def test_the_controller_says_why_the_canary_stays_in_the_shadow(world: World, controller: Controller) -> None:
    """Long after the deadline of a step no person is asked, and the status has the reason and the time."""
    controller.execute(c.StartRelease("m:v2", QUICK, "ann"))
    world.live(controller, 60)
    status = build_status("demo", controller.snapshot, story(world)).release
    assert status is not None
    assert status.waits_for is not None
    assert "more copied requests to prove in the shadow that 100 % is safe" in status.waits_for
    assert (status.deadline_s, "the steps would take" in status.waits_for) == (None, True)
    assert status.eta_s is not None
    assert 30 < status.eta_s < 300
    assert status.waits_for in one_sentence(story(world))
    assert world.live_until_ended(controller) == "promoted"
    entered = [event.weight_percent for event in release_events(world) if isinstance(event, e.StepEntered)]
    assert entered == [0, 25, 50, 100]


def test_a_killed_controller_stays_in_the_shadow_with_the_same_evidence(world: World, controller: Controller) -> None:
    """A replayed judge makes the same forecast."""
    controller.execute(c.StartRelease("m:v2", QUICK, "ann"))
    world.live(controller, 60)
    events = release_events(world)
    last = [event for event in events if isinstance(event, e.Ticked)][-1]
    judge = replayed(events)
    assert isinstance(judge, ReleaseJudge)
    assert judge.judgement(story(world).state) == last.evidence
    assert last.evidence.later_needed is not None
