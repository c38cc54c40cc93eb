"""Why noise is treated as it is: small versions of the page docs/benchmarks/noise.md."""

import math
from dataclasses import replace
from functools import cache
from statistics import median

import numpy as np
import pytest

from rollout.judge import JudgeConfig
from rollout.simulation.noise import main
from rollout.simulation.noisy_counts import ERRORS, NOISES, was_bound_wrong
from rollout.simulation.noisy_readings import NO_TOLERANCE, WAYS, Way, judged
from rollout.simulation.noisy_users import (
    EACH_FAILURE,
    ONCE,
    PER_VERSION,
    RAMP,
    TENTH,
    Bounds,
    Counting,
    bounds,
    failed_after_s,
)
from rollout.simulation.traffic import Behaviour, Scenario
from rollout.simulation.trial import Trial
from rollout.simulation.trial import failed_after_s as failed_by_requests_after_s
from rollout.simulation.users import CANARY, StickyScenario, Users, sticky_traffic

BROKEN = Users(500, broken_share=0.02)  # ten users who fail in half of their requests
RELEASES = 40


def false_alarms(scenario: StickyScenario, counting: Counting, releases: int = RELEASES) -> int:
    return sum(math.isfinite(failed_after_s(scenario, [counting], (7, number))[0]) for number in range(releases))


def test_counted_each_time_a_few_users_fail_many_harmless_canaries() -> None:
    """At 10 %, two of ten such users on the canary's side look like a doubled error ratio, for ever."""
    assert false_alarms(StickyScenario(BROKEN, TENTH), EACH_FAILURE) >= RELEASES * 0.15


@pytest.mark.parametrize("users", [BROKEN, Users(500, spread=4.7)], ids=["broken", "unequal"])
@pytest.mark.parametrize("weights", [TENTH, RAMP], ids=["a tenth", "ramp"])
def test_counted_once_a_release_they_fail_none(users: Users, weights: tuple[tuple[float, float], ...]) -> None:
    """A user is one accident."""
    assert false_alarms(StickyScenario(users, weights), ONCE, 15) == 0


def test_counted_once_by_each_version_a_ramp_fails_harmless_canaries() -> None:
    """Users who failed on stable long ago fail "for the first time" on the canary that they are moved to."""
    assert false_alarms(StickyScenario(Users(2000, broken_share=0.02), RAMP), PER_VERSION, 12) >= 4


@pytest.mark.parametrize(("harm", "within_s"), [(5.0, 250), (10.0, 90)])
def test_harm_to_many_users_is_found_as_soon(harm: float, within_s: float) -> None:
    """2,000 users who all fail more often: nearly every failure is a first one."""
    scenario = StickyScenario(Users(2000), TENTH, harm=harm)
    assert median(failed_after_s(scenario, [ONCE], (8, number))[0] for number in range(25)) <= within_s


@cache
def bound_on_a_doubled_ratio(number: int) -> Bounds:
    return bounds(StickyScenario(BROKEN, RAMP, harm=2.0), (9, number))


def test_the_bound_on_raw_counts_is_often_too_low() -> None:
    """Few broken users happened to be on the canary's side."""
    assert sum(bound_on_a_doubled_ratio(number).was_wrong[0] for number in range(20)) >= 6


def test_tempered_by_stables_users_the_bound_holds() -> None:
    """The price: a canary with ten such users is not proven harmless in an hour."""
    found = [bound_on_a_doubled_ratio(number) for number in range(20)]
    assert not any(bound.was_wrong[2] for bound in found)
    assert all(bound.at_last[2] > bound.at_last[0] for bound in found)


def test_no_user_leaves_the_canary_while_its_weight_rises() -> None:
    """As with the gateway's hash: one place for each user."""
    scenario = StickyScenario(Users(50, error_ratio=1.0), ((0.2, 300.0), (0.5, 300.0)))
    on_canary = [{f.user for f in failures if f.version == CANARY} for _, failures in sticky_traffic(scenario, 1)]
    early, late = set().union(*on_canary[:60]), set().union(*on_canary[60:])
    assert early < late


@pytest.mark.parametrize("users", [BROKEN, Users(500, spread=4.7), Users(500)], ids=["broken", "unequal", "alike"])
def test_all_populations_fail_as_often(users: Users) -> None:
    """The comparison is about whose failures they are, not how many."""
    rng = np.random.default_rng(5)
    means = [users.ratios(rng).mean() for _ in range(200)]
    assert float(np.mean(means)) == pytest.approx(0.01, rel=0.1)


def test_the_same_seed_gives_the_same_release() -> None:
    """What stands in the page can be looked at again."""
    scenario = replace(StickyScenario(BROKEN, TENTH), weights=((0.1, 60.0),))
    assert list(sticky_traffic(scenario, (1, 2))) == list(sticky_traffic(scenario, (1, 2)))


BURSTS = dict(NOISES)["bursts of 30 s, ICC 0.05"]


@pytest.mark.parametrize(("is_calibrated", "failed"), [(False, range(8, 21)), (True, range(1))])
def test_phi_keeps_bursts_of_one_version_from_failing_it(is_calibrated: bool, failed: range) -> None:
    """Twenty harmless canaries: nearly all are failed without it, none with it."""
    trial = Trial(Scenario(20, Behaviour(0.01), Behaviour(0.01), noise=BURSTS), RAMP, ERRORS, is_calibrated)
    found = [failed_by_requests_after_s(trial, (3, number)) for number in range(20)]
    assert sum(math.isfinite(at_s) for at_s in found) in failed


def test_phi_keeps_the_bound_from_being_too_low() -> None:
    """A canary with 0.5 % more errors, in bursts: what every step rests on."""
    scenario = Scenario(20, Behaviour(0.01), Behaviour(0.015), noise=BURSTS)
    plain, tempered = zip(*(was_bound_wrong(scenario, (4, number)) for number in range(15)), strict=True)
    assert (sum(plain) >= 4, sum(tempered)) == (True, 0)


def mean_e(way: Way, config: JudgeConfig) -> float:
    return float(np.mean([judged(way, config, (5, number)).mean_e for number in range(12)]))


@pytest.mark.parametrize("way", [WAYS[1], WAYS[3]], ids=lambda way: way.name)
def test_a_wrong_reading_makes_no_e_value(way: Way) -> None:
    """Two scrapes, or two weights in one window: the mean exceeds 1 for a harmless canary."""
    assert mean_e(way, NO_TOLERANCE) > 1.05
    assert mean_e(WAYS[0], NO_TOLERANCE) < 0.95


def test_the_page_has_a_row_for_every_population(capsys: pytest.CaptureFixture[str]) -> None:
    """One release of each kind is enough to see that it is written to the end."""
    assert main(["--jobs", "1", "--releases", "1"]) == 0
    assert capsys.readouterr().out.count("| 20,000, 2 % broken | a ramp |") == 3
