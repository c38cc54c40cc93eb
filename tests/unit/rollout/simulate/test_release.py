"""A simulated release behaves like a real one: same judge, same decisions, same steps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rollout.control import commands as c
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.signals.options import Errors, WrongLabel
from rollout.signals.plan import Signals
from rollout.simulate.noise import Noise
from rollout.simulate.release import simulate_release
from rollout.simulate.traffic import Behaviour, Scenario
from rollout.spec import RolloutSpec
from tests.support.world import Version, World

WELL = Behaviour(0.001, ((25, 0.3), (50, 0.1), (100, 0.02), (250, 0.005)), (0.25,) * 4, low_confidence_ratio=0.02)
HARMLESS = Scenario(100, WELL, WELL)
HALF_FAILING = replace(HARMLESS, canary=replace(WELL, error_ratio=0.5))
SPEC = RolloutSpec(soak=10, warmup=0)


def test_the_same_seed_gives_the_same_run() -> None:
    """A study can be repeated."""
    assert simulate_release(SPEC, HARMLESS, 1) == simulate_release(SPEC, HARMLESS, 1)


def test_a_harmless_canary_gets_live_requests_after_the_shadow_and_is_promoted() -> None:
    """Times are in order, and nothing was harmed."""
    run = simulate_release(SPEC, HARMLESS, 1)
    assert (run.outcome, run.signal, run.harmed) == ("promoted", None, 0.0)
    assert run.live_s is not None
    assert run.full_s is not None
    assert SPEC.soak <= run.live_s < run.full_s < run.stopped_s


def test_a_canary_that_fails_in_the_shadow_harms_nobody() -> None:
    """Copies of requests are evidence."""
    run = simulate_release(SPEC, HALF_FAILING, 1)
    assert (run.outcome, run.live_s, run.harmed) == ("rolled_back", None, 0.0)


def test_harm_is_counted_until_the_canary_is_stopped() -> None:
    """Half of the live requests are harmed; the canary is stopped in its first step at 5 %."""
    run = simulate_release(SPEC.model_copy(update={"steps": (5, 100)}), HALF_FAILING, 1)
    assert run.outcome == "rolled_back"
    assert run.harmed == pytest.approx(100 * 0.05 * (0.5 - 0.001) * run.stopped_s)


def test_harm_that_begins_later_is_found_later() -> None:
    """A canary that is healthy at first is stopped after its harm began."""
    late = replace(HALF_FAILING, rps=5, harm_after_s=300.0)
    run = simulate_release(SPEC.model_copy(update={"step_deadline": 3600.0}), late, 1)
    assert (run.outcome, run.stopped_s > 300) == ("rolled_back", True)


def test_too_little_traffic_ends_at_the_deadline() -> None:
    """At one request in ten seconds, 1 % of them for the canary and no copies, the proof never comes."""
    live = SPEC.model_copy(update={"steps": (1, 100), "on_deadline": "rollback"})
    run = simulate_release(live, replace(HARMLESS, rps=0.1), 1)
    assert (run.outcome, run.signal) == ("rolled_back", "deadline")
    # The weight returns once, and rises again when requests are counted.
    assert 0 <= run.stopped_s - SPEC.evidence_deadline - SPEC.step_deadline < 2 * SPEC.window + 1


def test_a_deadline_that_asks_a_person_ends_as_held() -> None:
    """The person does not answer; the run stops at the time of the request."""
    run = simulate_release(SPEC.model_copy(update={"steps": (1, 100)}), replace(HARMLESS, rps=0.1), 1)
    assert (run.outcome, run.signal) == ("held", "deadline")
    assert run.requests == pytest.approx(0.1 * (run.stopped_s + SPEC.step_deadline), abs=1)


def test_a_deadline_names_the_evidence_that_a_person_did_not_decide_on() -> None:
    """The plan leaves errors to a person; the deadline of the step rolls back because of them."""
    spec = SPEC.model_copy(update={"signals": Signals({"errors": Errors(on_fail="hold")})})
    run = simulate_release(spec, replace(HARMLESS, canary=replace(WELL, error_ratio=0.1)), 1)
    assert (run.outcome, run.signal) == ("rolled_back", "errors")


def test_a_plan_that_requires_better_promotes_only_a_better_canary() -> None:
    """A tenth of stable's wrong labels is proven better in the shadow; an equal share never is."""
    spec = SPEC.model_copy(update={"require": "better", "step_deadline": 120.0})
    stable = replace(WELL, wrong_label_ratio=0.4)
    equal = replace(HARMLESS, stable=stable, canary=stable, label_share=0.5, are_labels_paired=True)
    better = replace(equal, canary=replace(stable, wrong_label_ratio=0.04))
    assert [simulate_release(spec, scenario, 1).outcome for scenario in (better, equal)] == ["promoted", "held"]


def test_labels_of_copies_find_a_worse_canary_before_users_meet_it() -> None:
    """They are paired with stable's labels in the shadow."""
    right = replace(WELL, wrong_label_ratio=0.04)
    scenario = Scenario(100, right, replace(right, wrong_label_ratio=0.1), label_share=0.5, are_labels_paired=True)
    run = simulate_release(SPEC, scenario, 1)
    assert (run.outcome, run.live_s) == ("rolled_back", None)


def test_labels_at_an_age_find_harm_later_by_that_age() -> None:
    """A canary that is wrong in every second answer is found when the first labels count, soon after a minute."""
    wrong = replace(HARMLESS, canary=replace(WELL, wrong_label_ratio=0.5), label_share=0.5)
    at_once, at_an_age = (
        simulate_release(
            RolloutSpec(steps=(25, 50, 100), soak=120, signals=Signals({"wrong_label": WrongLabel(after=after)})),
            wrong,
            1,
        )
        for after in (0.0, 60.0)
    )
    assert (at_once.signal, at_an_age.signal) == ("wrong_label", "wrong_label")
    assert at_an_age.stopped_s == pytest.approx(at_once.stopped_s + 60, abs=15)


def test_harm_after_promotion_is_found_with_and_without_a_holdback() -> None:
    """With a holdback the canary's errors are compared with stable's, otherwise with those from before."""
    late = replace(HARMLESS, canary=replace(WELL, error_ratio=0.05), harm_after_s=300.0)
    spec = RolloutSpec(steps=(5, 50, 100), soak=10)
    compared, remembered = (
        simulate_release(spec.model_copy(update={"holdback": share}), late, 1) for share in (0.05, 0.0)
    )
    assert (compared.outcome, compared.signal) == ("rolled_back", "errors")
    assert (remembered.outcome, remembered.signal) == ("rolled_back", "watched_errors")
    assert compared.promoted_s is not None
    assert compared.promoted_s < 300 < compared.stopped_s
    harmful_s = compared.stopped_s - 300
    assert compared.harmed == pytest.approx(0.95 * 100 * (0.05 - 0.001) * harmful_s, rel=0.1)


def test_noise_is_measured_in_the_history() -> None:
    """If stable's failures come in clusters, the judge waits longer."""
    failing = Behaviour(error_ratio=0.01)
    retrying = Scenario(100, failing, failing, noise=Noise(retries=4))
    errors_only = Signals().only("errors")
    spec = RolloutSpec(steps=(25, 50, 100), step_deadline=7200, signals=errors_only)
    unaware, aware = (
        np.median([simulate_release(spec, retrying, (2, n), history_s=history_s).stopped_s for n in range(7)])
        for history_s in (0.0, 1800.0)
    )
    assert aware > 1.5 * unaware


def test_a_simulated_release_takes_as_long_as_one_of_the_real_controller(tmp_path: Path) -> None:
    """The controller runs in the tests' world with its ledger, at every beat of its loop."""
    spec = RolloutSpec(steps=(5, 25, 50, 100), soak=10, holdback=0, watch=10)
    never_failing = replace(HARMLESS, stable=replace(WELL, error_ratio=0.0), canary=replace(WELL, error_ratio=0.0))
    simulated = [simulate_release(spec, never_failing, (3, number)).stopped_s for number in range(5)]
    real = [promoted_after_s(World(tmp_path / f"{seed}.db", seed=seed), spec) for seed in range(5)]
    assert np.median(simulated) == pytest.approx(np.median(real), rel=0.1)


def promoted_after_s(world: World, spec: RolloutSpec) -> float:
    """Seconds from the first step to the promotion, from the real controller's ledger."""
    world.versions.update({"m:v1": Version(), "m:v2": Version()})
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 30)
    controller.execute(c.StartRelease("m:v2", spec, "ann"))
    assert world.live_until_ended(controller) == "promoted"
    controller.close()
    ledger = Ledger(world.path, read_only=True)
    at_s = {type(event): event.at_s for event in reversed(list(ledger.events()))}
    ledger.close()
    return at_s[e.Promoted] - at_s[e.StepEntered]
