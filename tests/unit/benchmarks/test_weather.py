"""The benchmark's simulated weather matches its worlds for every tool; goals and defeats are computed from results."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency, pearsonr

from benchmarks.judge.asymptotic import AsymptoticSequence, BudgetRamp
from benchmarks.judge.contenders import IN_WEATHER
from benchmarks.judge.count_tests import MixtureSprt, PeekedZTest, p_value
from benchmarks.judge.goals import goals_of
from benchmarks.judge.result import HORIZON_S, Result
from benchmarks.judge.scores import Scores, scores
from benchmarks.judge.timed_ramp import TimedRamp
from benchmarks.judge.tool import Outcome
from benchmarks.judge.trials import Trial
from benchmarks.judge.weather import SECONDS, TIMEOUT_S, Rates, Weather, WeatherTraffic, World, failures
from benchmarks.judge.weather_page import section
from benchmarks.judge.worlds import WORLDS
from rollout.judge import Pair, Window
from rollout.simulate.traffic import Behaviour

SCENARIOS = {case.key: case.scenario for case in WORLDS}
FAST = Behaviour(slow_ratios=((100, 0.1), (250, 0.0)))
SLOW = Behaviour(slow_ratios=((100, 1.0), (250, 1.0)))
NOTHING = Pair(0, 0)


def level(value: float) -> Rates:
    return np.full(len(SECONDS), value)


def world(make: Callable[[], Weather], version: Behaviour = Behaviour(), cold: Behaviour = Behaviour()) -> World:  # noqa: B008 - frozen
    return World(100.0, version, version, weather=lambda _: make(), cold=cold)


def errors(windows: tuple[Window, ...]) -> Window:
    return next(window for window in windows if window.signal == "errors")


# ---- the weather


@pytest.mark.parametrize("case", WORLDS, ids=lambda case: case.key)
def test_every_world_is_valid_and_depends_only_on_the_seed(case: object) -> None:
    """Arrivals are not negative, and ratios are between 0 and 1."""
    make = SCENARIOS[case.key].weather  # type: ignore[attr-defined]
    first, again = make(np.random.default_rng(7)), make(np.random.default_rng(7))
    for rates, most in ((first.arrivals, math.inf), (first.stable, 1.0), (first.canary, 1.0)):
        assert rates.shape == SECONDS.shape
        assert ((rates >= 0) & (rates <= most)).all()
    assert (first.arrivals == again.arrivals).all()
    assert (first.stable == again.stable).all()


def test_counts_follow_the_rates_over_time_for_any_window() -> None:
    """All canary requests fail in the second from 10 to 11 s; the canary has a quarter of the traffic."""
    of_canary = np.where(SECONDS == 10, 1.0, 0.0)
    traffic = WeatherTraffic(world(lambda: Weather(level(10_000.0), level(0.1), of_canary)), (7,))
    first, second = (errors(traffic.window(0.25, seconds=seconds)) for seconds in (10.5, 4.5))
    for window, seconds in ((first, 10.5), (second, 4.5)):
        assert window.canary.bad == pytest.approx(2500 * 0.5, rel=0.15)
        assert window.canary.total == pytest.approx(2500 * seconds, rel=0.05)
        assert window.stable.bad / window.stable.total == pytest.approx(0.1, rel=0.1)


def test_the_weather_does_not_depend_on_the_canarys_share() -> None:
    """Minutes in which all requests fail are bad minutes for every tool."""
    few, many = (WeatherTraffic(SCENARIOS["log-normal"], (7, 1)) for _ in range(2))  # type: ignore[arg-type]
    ratios = []
    for traffic, weight in ((few, 0.1), (many, 0.5)):
        minutes = [errors(traffic.window(weight, seconds=60.0)).stable for _ in range(60)]
        ratios.append([minute.bad / minute.total for minute in minutes])
    assert pearsonr(*ratios).statistic > 0.9


def test_the_history_has_only_stable_before_the_first_request() -> None:
    """It covers half an hour with its own weather, up to now."""
    stable = np.where(SECONDS < -900, 0.2, 0.0)
    history = WeatherTraffic(world(lambda: Weather(level(100.0), stable, level(1.0))), (7,)).history(1800)["errors"]
    assert sum((window.canary for window in history), NOTHING) == NOTHING
    assert sum(window.stable.total for window in history) == pytest.approx(180_000, rel=0.02)
    assert sum(window.stable.bad for window in history[180:]) == 0 < sum(window.stable.bad for window in history[:180])


def hanging() -> Weather:
    return Weather(level(1000.0), level(0.0), level(0.0), hanging=0.5)


def test_a_hanging_request_fails_when_the_gateway_gives_up() -> None:
    """For ten seconds the canary only seems to have less traffic."""
    traffic = WeatherTraffic(world(hanging), (7,))
    early = [errors(traffic.window(0.5)).canary for _ in range(TIMEOUT_S // 5)]
    late = errors(traffic.window(0.5)).canary
    assert [pair.bad for pair in early] == [0, 0]
    assert early[0].total == pytest.approx(1250, rel=0.1)
    assert late.bad == pytest.approx(1250, rel=0.1)
    assert traffic.harmed(0.5, 10.0) == pytest.approx(2500)


def test_requests_that_hang_at_one_weight_fail_at_the_next() -> None:
    """Those of 50 % are counted at 1 %. Copies without an answer at the end of the shadow never are."""
    live, shadow = (WeatherTraffic(world(hanging), (7,)) for _ in range(2))
    live.window(0.5, seconds=10.0)
    shadow.window(0.0, mirror=True, seconds=10.0)
    assert errors(live.window(0.01)).canary.bad == pytest.approx(1250, rel=0.1)
    assert errors(shadow.window(0.01)).canary.bad == 0


def test_only_the_first_requests_of_a_cold_cache_are_slow() -> None:
    """These are 3,000 requests, copies included."""
    weather = Weather(level(100.0), level(0.0), level(0.0), cold_requests=3000)
    traffic = WeatherTraffic(world(lambda: weather, FAST, SLOW), (7,))
    slow = 0
    for _ in range(20):
        windows = traffic.window(0.0, mirror=True)
        stable, canary = failures(windows, 250)
        assert stable.bad == 0
        slow += canary.bad
    assert slow == 3000


def test_a_leak_at_full_traffic_begins_only_there() -> None:
    """Half of the traffic is not enough; later, harm is counted for an hour."""
    weather = Weather(level(100.0), level(0.0), level(0.0), at_full=level(1.0))
    traffic = WeatherTraffic(world(lambda: weather), (7,))
    traffic.window(0.5, seconds=600.0)
    assert traffic.harmed(0.5, 600.0) == 0
    assert errors(traffic.window(1.0, seconds=10.0)).canary.bad > 900
    assert traffic.harmed(1.0, HORIZON_S) == pytest.approx(100 * 3590)


def test_harm_is_the_canarys_excess_over_stable_up_to_the_horizon() -> None:
    """Where stable fails more, the canary harms nobody."""
    stable = np.where(SECONDS < 100, 1.0, 0.1)
    traffic = WeatherTraffic(world(lambda: Weather(level(100.0), stable, level(0.3))), (7,))
    assert traffic.harmed(0.1, 2 * HORIZON_S) == pytest.approx(10 * 0.2 * (HORIZON_S - 100))


# ---- the tests that teams write


def counts(excess: float, *, runs: int, windows: int = 120, base: float = 0.01) -> Iterator[list[tuple[Pair, Pair]]]:
    """Windows with 100 requests for each version."""
    rng = np.random.default_rng(7)
    for _ in range(runs):
        stable, canary = rng.binomial(100, base, windows), rng.binomial(100, base + excess, windows)
        yield [(Pair(int(y), 100), Pair(int(x), 100)) for y, x in zip(stable, canary, strict=True)]


def test_the_mixture_sprt_rolls_back_harmless_canaries_with_probability_at_most_alpha() -> None:
    """It is tested after every window."""
    alarms = 0
    for run in counts(0.0, runs=300):
        test = MixtureSprt(alpha=0.05)
        alarms += any(test.observe(0.0, 0.5, stable, canary) for stable, canary in run)
    assert binomtest(alarms, 300, 0.05, alternative="greater").pvalue > 0.001


def test_the_mixture_sprt_finds_twice_the_failures() -> None:
    """1 % becomes 2 %, found in most of the runs within 120 windows of 5 s."""
    found = 0
    for run in counts(0.01, runs=100):
        test = MixtureSprt()
        found += any(test.observe(0.0, 0.5, stable, canary) for stable, canary in run)
    assert found > 90


def test_the_z_test_has_the_textbook_p_value() -> None:
    """It is half of that of the chi-squared test, which is two-sided."""
    table = [[30, 970], [45, 955]]
    expected = chi2_contingency(table, correction=False).pvalue / 2
    assert p_value(Pair(30, 1000), Pair(45, 1000)) == pytest.approx(expected)


def test_the_z_test_runs_once_a_minute_on_counts_of_the_current_weight() -> None:
    """Counts at another weight are dropped."""
    test = PeekedZTest()
    assert [test.observe(at_s, 0.5, Pair(0, 100), Pair(9, 100)) for at_s in (30.0, 59.0, 60.0)] == [False, False, True]
    assert not test.observe(120.0, 0.25, Pair(4, 100), Pair(4, 100))


def test_the_asymptotic_confidence_sequence_has_its_coverage_at_all_times() -> None:
    """Each bound is ever wrong with probability at most alpha."""
    wrong = {"lower": 0, "upper": 0}
    for run in counts(0.01, runs=300, base=0.05):
        sequence = AsymptoticSequence(alpha=0.05, best_variance=500.0)
        was_above = was_below = False
        for stable, canary in run:
            sequence.observe(0.5, stable, canary)
            was_above |= sequence.lower > 0.01
            was_below |= sequence.upper < 0.01
        wrong["lower"] += was_above
        wrong["upper"] += was_below
    assert all(binomtest(each, 300, 0.05, alternative="greater").pvalue > 0.001 for each in wrong.values())


def released(ramp: BudgetRamp | TimedRamp, canary_ratio: float, *, is_counted: bool = True) -> Outcome | None:
    """The outcome at 200 requests a second, 1 % of which fail on stable."""
    rng = np.random.default_rng(7)
    for window in range(1, 500):
        of_canary = 10 * ramp.weight_percent
        stable = Pair(int(rng.binomial(1000 - of_canary, 0.01)), 1000 - of_canary)
        canary = Pair(int(rng.binomial(of_canary, canary_ratio)), of_canary) if is_counted else NOTHING
        if outcome := ramp.observe(5.0 * window, stable, canary):
            return outcome
    return None


@pytest.mark.parametrize("make", [BudgetRamp, lambda: TimedRamp(MixtureSprt()), lambda: TimedRamp(PeekedZTest())])
def test_ramps_promote_roll_back_and_wait(make: Callable[[], BudgetRamp | TimedRamp]) -> None:
    """The canary is better, worse, or never counted."""
    ends = [released(make(), 0.005), released(make(), 0.1), released(make(), 0.01, is_counted=False)]
    assert ends == ["promoted", "rolled_back", None]


# ---- goals and defeats


def found(ours: Result, theirs: Result, *, runs: int = 200) -> Scores:
    """The scores if every release of Kanaria ends in one way, and every other release in another."""
    return scores(
        (Trial(case.key, contender.key, 1, run), ours if contender.is_ours else theirs)
        for case in WORLDS
        for contender in IN_WEATHER
        for run in range(runs)
    )


PROMOTED = Result("promoted", None, 100.0, 100.0, 10_000.0)
ROLLED_BACK = Result("rolled_back", "errors", 20.0, None, 1.0)


def statuses(every: Scores, key: str) -> list[str]:
    case = next(case for case in WORLDS if case.key == key)
    return [goal.status(every[key, "kanaria"]) for goal in goals_of(case)]


def test_goals_are_kept_or_broken_by_what_was_measured() -> None:
    """Promoting everything is right for the healthy worlds and wrong for the others."""
    all_promoted, all_rolled_back = found(PROMOTED, PROMOTED), found(ROLLED_BACK, PROMOTED)
    assert statuses(all_promoted, "clean") == ["kept", "kept", "kept"]
    assert statuses(all_promoted, "leak") == ["broken", "broken"]
    assert statuses(all_rolled_back, "clean") == ["broken", "kept", "broken"]
    assert statuses(all_rolled_back, "leak") == ["kept", "kept"]


def test_a_goal_missed_within_chance_is_not_broken() -> None:
    """One rollback of 20 is more than 1 %, but may be chance."""
    results = [ROLLED_BACK, *[PROMOTED] * 19]
    every = scores((Trial("clean", "kanaria", 1, run), result) for run, result in enumerate(results))
    assert statuses(every, "clean")[0] == "within error"


def test_a_row_in_which_another_tool_is_better_says_so() -> None:
    """The other tools roll back what Kanaria promotes: less harm in every worse world, no better in healthy ones."""
    text = section(found(PROMOTED, ROLLED_BACK))
    worse = [case for case in WORLDS if case.truth == "worse"]
    assert text.count("**better**: promoted, harmed") == len(worse) * (len(IN_WEATHER) - 1)
    defeats = text.partition("### Where others are better")[2].partition("### World by world")[0]
    assert all(case.title in defeats for case in worse)
    assert text.count("**better**") == text.count("**better**: promoted, harmed")


def test_the_section_lists_the_broken_goals_and_counts_the_others() -> None:
    """It has one row for each goal whose status is broken."""
    every = found(PROMOTED, ROLLED_BACK)
    goals = [status for case in WORLDS for status in statuses(every, case.key)]
    listed = section(every).partition("### Where Kanaria breaks its goals")[2].partition("###")[0]
    assert listed.count("\n|") == goals.count("broken") + 3
    assert f"{len(goals) - goals.count('broken')} of {len(goals)}" in listed
