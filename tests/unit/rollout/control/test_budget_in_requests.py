"""A budget in requests: at most this many of users' requests are harmed, however much traffic there is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.control.decide import EnterStep, Facts, Hold, decide
from rollout.control.exposure import Exposure
from rollout.control.release_judge import replayed
from rollout.errors import SpecError
from rollout.explain.plan import plan_in_words
from rollout.explain.timeline import Timeline, timeline
from rollout.explain.why import why
from rollout.fleet import Health
from rollout.judge import Ask, JudgeConfig, Judgement, Pair, SignalJudgement, Verdict, Window
from rollout.judge.bets import EVEN_BETS, bets_for
from rollout.judge.bound import ExcessBound
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Phase, Release
from rollout.simulate.release import Run, simulate_release
from rollout.simulate.study import Findings
from rollout.simulate.traffic import Behaviour, Scenario
from rollout.simulate.words import as_object, stories
from rollout.spec import RiskBudget, RolloutSpec, parse_spec
from rollout.ui.status import build_status
from tests.support.world import Version, World

ALLOWED = 500
PLAN = parse_spec(f"risk_budget: {{share: 0.5%, requests: {ALLOWED}}}")
ERRORS_ONLY = PLAN.model_copy(update={"signals": PLAN.signals.only("errors")})


# ---- what a plan may contain


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("", RiskBudget(share=0.005, requests=None)),
        ("risk_budget: 2%", RiskBudget(share=0.02, requests=None)),
        ("risk_budget: {share: 2%}", RiskBudget(share=0.02, requests=None)),
        ("risk_budget: {requests: 500}", RiskBudget(share=0.005, requests=500)),
        ("risk_budget: {requests: none}", RiskBudget(share=0.005, requests=None)),
        ("risk_budget: {share: 1%, requests: 1000000000000}", RiskBudget(share=0.01, requests=10**12)),
    ],
)
def test_a_budget_is_a_share_or_also_a_number(text: str, budget: RiskBudget) -> None:
    """A budget that is only a share is written as before."""
    spec = parse_spec(text)
    assert spec.risk_budget == budget
    assert RolloutSpec.model_validate_json(spec.model_dump_json()) == spec  # as stored in the ledger


@pytest.mark.parametrize(
    "value", ["0", "-1", "1.5", "5%", "many", "'1,000'", "true", "[5]", "1000000000001", ".inf", "1e3"]
)
def test_a_wrong_number_is_refused_with_an_example(value: str) -> None:
    """Zero is refused too: a canary that may harm nothing cannot be released."""
    with pytest.raises(SpecError) as refused:
        parse_spec(f"risk_budget: {{requests: {value}}}")
    assert "`risk_budget.requests` is" in refused.value.saw
    assert "write a whole number of requests from 1 to 1,000,000,000,000" in refused.value.do


@pytest.mark.parametrize(
    ("text", "do"),
    [
        ("risk_budget: {request: 5}", "did you mean `requests`?"),
        ("risk_budget: {share: 5}", "write a share such as 0.5%"),
        ("risk_budget: 5", "write a share such as 0.5%"),
        ("risk_budget: [0.5%, 500]", "write a share such as 0.5%"),
        ("risk_budget: ", "write a share such as 0.5%"),
    ],
)
def test_a_wrong_budget_is_refused_with_a_remedy(text: str, do: str) -> None:
    """Any type of value is handled."""
    with pytest.raises(SpecError) as refused:
        parse_spec(text)
    assert do in refused.value.do


@pytest.mark.parametrize("steps", ["auto", "[100]", "[1, 5, 25, 50, 100]"])
def test_a_plan_without_a_shadow_is_refused(steps: str) -> None:
    """Its first request would come from a user, before anything is proven."""
    with pytest.raises(SpecError) as refused:
        parse_spec(f"{{steps: {steps}, risk_budget: {{requests: 5}}}}")
    assert "`risk_budget.requests` is 5" in refused.value.saw
    assert "begin `steps` with `shadow`" in refused.value.do


def test_validate_explains_the_budget() -> None:
    """It prints the number next to the share."""
    assert any(
        "0.5 % of all requests may be harmed, and at most 500 users' requests" in line for line in plan_in_words(PLAN)
    )


# ---- the arithmetic


def test_the_allowed_excess_is_the_smaller_of_both_limits() -> None:
    """One limit is a share of traffic at a weight; the other a number among the requests answered by then."""
    config = JudgeConfig(budget_requests=500)
    assert config.most_excess(Ask(0.5, requests=1000)) == pytest.approx(0.01)
    assert config.most_excess(Ask(0.5, requests=1_000_000)) == pytest.approx(0.0005)
    assert config.most_excess(Ask(0.5)) == pytest.approx(0.01)
    assert JudgeConfig().most_excess(Ask(0.5, requests=1e9)) == pytest.approx(0.01)


def test_shadow_copies_do_not_spend_the_budget() -> None:
    """They show how much traffic there is, and harm nobody."""
    exposure = Exposure()
    exposure.observe([Window(5, 5, "errors", Pair(0, 500), Pair(0, 500))], mirror=True)
    assert (exposure.requests, exposure.per_s) == (0, 100)
    exposure.observe([Window(10, 5, "errors", Pair(0, 450), Pair(0, 50))], mirror=False)
    assert exposure.requests == 50
    assert exposure.per_s == pytest.approx(100)
    assert exposure.of_steps(PLAN, (0.05, 0.25)) == (Ask(0.05, 50 + 300), Ask(0.25, 50 + 1800))


def test_bets_include_the_small_excess_of_a_request_budget() -> None:
    """High traffic needs a small excess refuted; a stake on it makes that faster, and the stakes still sum to 1."""
    known, excess = Pair(360_000, 36_000_000), 2.4e-4
    aware, unaware = bets_for(0.005, known, [excess]), bets_for(0.005, known)
    assert sum(np.exp(aware.log_stakes)) == pytest.approx(1)
    assert bets_for(0.005, Pair(0, 0), [excess]) == EVEN_BETS
    needed = []
    for bets in (aware, unaware):
        bound = ExcessBound(0.01, bets=bets)
        bound.observe(Pair(1000, 100_000), Pair(1000, 100_000))
        needed.append(bound.more_needed(excess))
    assert needed[0] < needed[1]


@pytest.mark.parametrize("excess", [2e-4, 1e-3, 5e-3, 0.3])
def test_the_budget_bounds_harmed_requests_at_every_time(excess: float) -> None:
    """Only the rule, at the largest weight it allows, against canaries that are worse by a constant excess."""
    rng, allowed, rate, runs, broken = np.random.default_rng(5), 20, 5000, 200, 0
    for _ in range(runs):
        bound, answered, worst = ExcessBound(0.01), 0, 0.0
        for _ in range(40):
            room = allowed / bound.upper() - answered
            weight = min(0.5, max(0.0, room / rate))  # the largest weight that the rule allows; 0 means a shadow copy
            to_canary = int(weight * rate)
            n_c, n_s = (to_canary, rate - to_canary) if to_canary else (rate, rate)
            bound.observe(Pair(int(rng.binomial(n_s, 0.002)), n_s), Pair(int(rng.binomial(n_c, 0.002 + excess)), n_c))
            answered += to_canary
            worst = max(worst, excess * answered)
        broken += worst > allowed
    assert broken <= 6  # of 200 runs at 1 %: more than 6 occur in at most 5 of 1,000 such tests


# ---- the decisions


def live(**more: object) -> Release:
    base = Release(
        number=1,
        canary="m:v2",
        stable="m:v1",
        spec=PLAN,
        requested_s=0.0,
        by="ann",
        phase=Phase.STEPPING,
        step=2,
        weight_percent=5,
        measured_s=30.0,
        seen_s=30.0,
    )
    return replace(base, **more)  # type: ignore[arg-type]


def judged(harmed: float, *, verdict: Verdict = Verdict.PASS, more: float = 0.0) -> Judgement:
    errors = SignalJudgement(
        verdict, 0.0, 5.0, Pair(0, 10_000), Pair(0, 10_000), 0.001, more_requests_needed=more, canary_per_s=1000.0
    )
    answered = round(1000 * harmed)
    return Judgement(verdict, "because", 0.0, 4.6, {"errors": errors}, answered=answered, least_upper=0.001)


def facts(*, unseen_s: float = 0.0, stable: Health = Health.READY) -> Facts:
    return Facts(30.0, unseen_s, Health.READY, stable, False, 0.0, "", True, True, Pair(0, 600), Pair(0, 600))


def test_it_returns_to_the_shadow_before_the_next_window_could_break_the_budget() -> None:
    """5,000 more requests with an excess of at most 0.1 % could harm five more."""
    assert isinstance(decide(live(), facts(), judged(495)), Hold)
    for release in (live(), live(is_paused=True)):
        back = decide(release, facts(), judged(495.1))
        assert isinstance(back, EnterStep)
        assert (back.step, back.weight_percent, back.mirror) == (0, 0, True)
        assert "than the plan's 500" in back.reason


def test_uncounted_requests_spend_the_budget() -> None:
    """Without readings, the canary is assumed to answer as many requests as before."""
    assert isinstance(decide(live(), facts(unseen_s=100), judged(390)), Hold)
    assert isinstance(decide(live(), facts(unseen_s=115), judged(390)), EnterStep)


def test_proof_missing_after_the_soak_is_collected_in_the_shadow() -> None:
    """Collecting it at the step would harm users' requests."""
    missing = judged(10, verdict=Verdict.INCONCLUSIVE, more=100.0)
    assert isinstance(decide(live(), facts(), missing), Hold)
    back = decide(live(seen_s=60.0), facts(), missing)
    assert isinstance(back, EnterStep)
    assert back.mirror


def test_without_a_healthy_stable_a_person_is_asked() -> None:
    """There is no version to return to."""
    action = decide(live(), facts(stable=Health.UNREADY), judged(600))
    assert isinstance(action, Hold)
    assert action.needs_person


def test_a_plan_without_a_request_budget_never_returns_for_it() -> None:
    """Its judgements have no bound on harmed requests."""
    assert isinstance(
        decide(live(spec=RolloutSpec()), facts(), replace(judged(600), answered=None, least_upper=None)), Hold
    )


# ---- releases


def at(rps: float, ratio: float, *, base: float = 0.001, spec: RolloutSpec = ERRORS_ONLY, seed: int = 1) -> Run:
    traffic = Scenario(rps, Behaviour(base), Behaviour(ratio))
    return simulate_release(spec, traffic, seed, patience_s=600.0, until_s=3600.0)


def test_high_traffic_is_promoted_as_before() -> None:
    """At 20,000 requests a second and 0.1 % errors, half a minute of copies is proof enough for the budget."""
    run = at(20_000, 0.001)
    assert (run.outcome, run.asked_s) == ("promoted", None)
    share_alone = ERRORS_ONLY.model_copy(update={"risk_budget": RiskBudget()})
    assert run.stopped_s == pytest.approx(at(20_000, 0.001, spec=share_alone).stopped_s, abs=30)


@pytest.mark.parametrize("ratio", [0.0012, 0.0015, 0.002])
def test_a_small_harm_at_high_traffic_stays_within_the_budget(ratio: float) -> None:
    """Without a request budget, 0.12 % harms 3,800 requests and no test finds it: it is within every tolerance."""
    assert at(20_000, ratio).harmed_before <= ALLOWED


@pytest.mark.parametrize(
    ("rps", "requests", "outcome"),
    [
        (2, 10**12, "promoted"),  # more than all traffic
        (2, 500, "promoted"),
        (100, 20, "promoted"),
        (0.0001, 500, "held"),  # no traffic
        (1000, 1, "held"),  # copies cannot prove so small an excess within the hour
    ],
)
def test_other_traffic_and_other_budgets(rps: float, requests: int, outcome: str) -> None:
    """A generous budget changes nothing; one that asks for too much ends without harm."""
    spec = ERRORS_ONLY.model_copy(update={"risk_budget": RiskBudget(requests=requests)})
    run = at(rps, 0.0, base=0.0, spec=spec) if requests > 1 else at(rps, 0.001, spec=spec)
    assert (run.outcome, run.harmed_before) == (outcome, 0)


def test_a_simulation_reports_releases_over_the_budget() -> None:
    """It counts the releases that harmed more; those within the budget are not counted."""
    traffic = Scenario(20_000, Behaviour(0.001), Behaviour(0.0015))
    findings = Findings(ERRORS_ONLY, traffic, (at(20_000, 0.001),), (at(20_000, 0.0015),))
    lines = [answer for story in stories(findings) for answer in story.answers]
    assert [line.value for line in lines if line.what == "harms over 500 before promotion"] == ["0 of 1"]
    assert as_object(findings)["harmful"]["over_budget_requests"]["count"] == 0
    assert any(line.what == "leaves the shadow after" for line in lines)


# ---- the real controller


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ledger.db", rps=200.0, versions={"m:v1": Version(0.01), "m:v2": Version(0.01)})


def release_events(world: World) -> list[e.Event]:
    ledger = Ledger(world.path, read_only=True)
    try:
        return list(ledger.events(release=1))
    finally:
        ledger.close()


def story(world: World) -> Timeline:
    return timeline(release_events(world))


def test_the_controller_keeps_shows_and_replays_the_budget(world: World, controller: Controller) -> None:
    """Traffic grows tenfold at a step: the canary returns to the shadow with a reason, and comes back when proven."""
    plan = RolloutSpec(soak=5, window=2, warmup=0, holdback=0, watch=4, risk_budget=RiskBudget(share=0.02, requests=60))
    controller.execute(c.StartRelease("m:v2", plan, "ann"))
    while not any(split.canary_percent > 1 for split in world.router.history):
        world.live(controller, 1)
    world.rps *= 20
    world.live(controller, 60)
    returned = [
        event for event in release_events(world) if isinstance(event, e.StepEntered) and event.by == "controller"
    ]
    assert returned
    assert returned[0].mirror
    assert "back to the shadow" in returned[0].reason
    status = build_status("demo", controller.snapshot, story(world)).release
    assert status is not None
    assert status.budget is not None
    assert status.budget.endswith("the plan allows 60 until promotion.")
    assert any(status.budget in topic.lines for topic in why(story(world)).topics)
    ticks = [event for event in release_events(world) if isinstance(event, e.Ticked)]
    judge = replayed(release_events(world))
    assert judge is not None
    assert ticks[-1].evidence.harmed_upper() is not None
    if story(world).state.phase is Phase.STEPPING and isinstance(release_events(world)[-1], e.Ticked):
        assert judge.judgement(story(world).state) == ticks[-1].evidence
