"""Why the judge models noise as it does: small versions of the page docs/benchmarks/noise.md."""

import math
import re
from dataclasses import replace
from functools import cache
from statistics import median

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.proofs.noisy_blips import SHARED, release
from benchmarks.proofs.noisy_counts import ERRORS, NOISES, was_bound_wrong
from benchmarks.proofs.noisy_readings import NO_TOLERANCE, WAYS, Way, judged
from benchmarks.proofs.noisy_users import (
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
from benchmarks.proofs.trial import Trial
from benchmarks.proofs.trial import failed_after_s as failed_by_requests_after_s
from benchmarks.proofs.users import CANARY, StickyScenario, Users, sticky_traffic
from rollout.judge import JudgeConfig
from rollout.simulate.traffic import Behaviour, Scenario

BROKEN = Users(500, broken_share=0.02)  # ten users, half of whose requests fail
RELEASES = 40


def false_alarms(scenario: StickyScenario, counting: Counting, releases: int = RELEASES) -> int:
    return sum(math.isfinite(failed_after_s(scenario, [counting], (7, number))[0]) for number in range(releases))


def test_counting_every_failure_fails_many_harmless_canaries() -> None:
    """At 10 %, two of ten broken users on the canary double its error ratio permanently."""
    assert false_alarms(StickyScenario(BROKEN, TENTH), EACH_FAILURE) >= RELEASES * 0.15


@pytest.mark.parametrize("users", [BROKEN, Users(500, spread=4.7)], ids=["broken", "unequal"])
@pytest.mark.parametrize("weights", [TENTH, RAMP], ids=["a tenth", "ramp"])
def test_counting_each_user_once_per_release_fails_no_harmless_canary(
    users: Users, weights: tuple[tuple[float, float], ...]
) -> None:
    """All failures of a user are one event."""
    assert false_alarms(StickyScenario(users, weights), ONCE, 15) == 0


def test_counting_each_user_once_per_version_fails_harmless_canaries_in_a_ramp() -> None:
    """Users who failed on stable long ago count as new failures on the canary to which they are moved."""
    assert false_alarms(StickyScenario(Users(2000, broken_share=0.02), RAMP), PER_VERSION, 12) >= 4


@pytest.mark.parametrize(("harm", "within_s"), [(5.0, 250), (10.0, 90)])
def test_harm_to_many_users_is_found_as_soon(harm: float, within_s: float) -> None:
    """For 2,000 users who all fail more often, nearly every failure is a first one."""
    scenario = StickyScenario(Users(2000), TENTH, harm=harm)
    assert median(failed_after_s(scenario, [ONCE], (8, number))[0] for number in range(25)) <= within_s


@cache
def bound_on_a_doubled_ratio(number: int) -> Bounds:
    return bounds(StickyScenario(BROKEN, RAMP, harm=2.0), (9, number))


def test_the_bound_on_raw_counts_is_often_too_low() -> None:
    """By chance few broken users are on the canary."""
    assert sum(bound_on_a_doubled_ratio(number).was_wrong[0] for number in range(20)) >= 6


def test_the_bound_with_the_dispersion_of_stables_users_holds() -> None:
    """The price is that a canary with ten such users is not proven harmless within an hour."""
    found = [bound_on_a_doubled_ratio(number) for number in range(20)]
    assert not any(bound.was_wrong[2] for bound in found)
    assert all(bound.at_end[2] > bound.at_end[0] for bound in found)


def test_no_user_leaves_the_canary_while_its_weight_rises() -> None:
    """Each user has a fixed place, as with the gateway's hash."""
    scenario = StickyScenario(Users(50, error_ratio=1.0), ((0.2, 300.0), (0.5, 300.0)))
    on_canary = [{f.user for f in failures if f.version == CANARY} for _, failures in sticky_traffic(scenario, 1)]
    early, late = set().union(*on_canary[:60]), set().union(*on_canary[60:])
    assert early < late


@pytest.mark.parametrize("users", [BROKEN, Users(500, spread=4.7), Users(500)], ids=["broken", "unequal", "alike"])
def test_all_populations_have_the_same_error_ratio(users: Users) -> None:
    """The comparison is about which users fail, not about how many failures there are."""
    rng = np.random.default_rng(5)
    means = [users.ratios(rng).mean() for _ in range(200)]
    assert float(np.mean(means)) == pytest.approx(0.01, rel=0.1)


def test_the_same_seed_gives_the_same_release() -> None:
    """A result on the page can be reproduced."""
    scenario = replace(StickyScenario(BROKEN, TENTH), weights=((0.1, 60.0),))
    assert list(sticky_traffic(scenario, (1, 2))) == list(sticky_traffic(scenario, (1, 2)))


BURSTS = dict(NOISES)["bursts of 30 s, ICC 0.05"]


@pytest.mark.parametrize(("is_calibrated", "failed"), [(False, range(8, 21)), (True, range(1))])
def test_phi_prevents_false_fails_from_bursts_of_one_version(is_calibrated: bool, failed: range) -> None:
    """Of twenty harmless canaries nearly all FAIL without it, and none with it."""
    trial = Trial(Scenario(20, Behaviour(0.01), Behaviour(0.01), noise=BURSTS), RAMP, ERRORS, is_calibrated)
    found = [failed_by_requests_after_s(trial, (3, number)) for number in range(20)]
    assert sum(math.isfinite(at_s) for at_s in found) in failed


def test_phi_keeps_the_bound_valid() -> None:
    """The canary has 0.5 percentage points more errors, in bursts; every step relies on this bound."""
    scenario = Scenario(20, Behaviour(0.01), Behaviour(0.015), noise=BURSTS)
    plain, flat, own = zip(*(was_bound_wrong(scenario, (4, number)) for number in range(15)), strict=True)
    assert (sum(plain) >= 4, sum(flat), sum(own)) == (True, 0, 0)


@pytest.mark.parametrize("is_flat", [True, False], ids=["all noise", "own noise"])
def test_short_bursts_on_both_versions_do_not_hold_a_harmless_release(is_flat: bool) -> None:
    """Half of all requests fail for 3 s every five minutes. Taken as the canary's noise, this held every release."""
    outcomes = {release(SHARED, 0.0, is_flat, (6, number)).outcome for number in range(8)}
    assert outcomes == ({"held"} if is_flat else {"promoted"})


@pytest.mark.parametrize(("excess", "within_s"), [(0.3, 60), (0.05, 600)])
def test_short_bursts_on_both_versions_do_not_hide_harm(excess: float, within_s: float) -> None:
    """Nine of ten canaries with 30 % failures are stopped within a minute, with 5 % more failures within ten."""
    runs = [release(SHARED, excess, False, (6, number)) for number in range(20)]
    assert {run.outcome for run in runs} == {"rolled_back"}
    assert sum(run.stopped_s <= within_s for run in runs) >= 18


@pytest.mark.parametrize("burst_s", [3, 30])
def test_short_bursts_on_one_version_fail_no_harmless_canary(burst_s: float) -> None:
    """Half of the requests of each version fail for some seconds, at different times for each."""
    own = replace(SHARED, blip_s=burst_s, are_blips_shared=False)
    trial = Trial(Scenario(100, Behaviour(0.005), Behaviour(0.005), noise=own), RAMP, ERRORS)
    for is_calibrated, failed in ((False, range(4, 26)), (True, range(1))):
        ways = [replace(trial, is_calibrated=is_calibrated)] * 25
        found = [failed_by_requests_after_s(one, (7, number)) for number, one in enumerate(ways)]
        assert sum(math.isfinite(at_s) for at_s in found) in failed


def mean_e(way: Way, config: JudgeConfig) -> float:
    return float(np.mean([judged(way, config, (5, number)).mean_e for number in range(12)]))


@pytest.mark.parametrize("way", [WAYS[1], WAYS[3]], ids=lambda way: way.name)
def test_a_wrong_reading_of_counts_gives_no_e_value(way: Way) -> None:
    """With two scrapes or two weights in one window the expectation exceeds 1 for a harmless canary."""
    assert mean_e(way, NO_TOLERANCE) > 1.05
    assert mean_e(WAYS[0], NO_TOLERANCE) < 0.95


@pytest.mark.exhaustive
def test_the_page_has_a_row_for_every_population() -> None:
    """One release of each kind suffices to test that the page is printed to the end."""
    result = CliRunner().invoke(app, ["noise", "--jobs", "1", "--scale", "0.001"])
    assert result.exit_code == 0, result.output
    assert len(re.findall(r"^\| 20,000, 2 % broken +\| a ramp +\|", result.stdout, re.MULTILINE)) == 3
