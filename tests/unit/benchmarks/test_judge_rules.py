"""The rules of other tools follow their documentation, and the benchmark treats every tool alike."""

import math
from collections.abc import Iterable
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.judge import ours
from benchmarks.judge.argo import ArgoRollout, Metric, MetricResult, Phase
from benchmarks.judge.arrays import ARRAYS, Array, kayenta_label, our_judgement
from benchmarks.judge.cases import CASES
from benchmarks.judge.contenders import CONTENDERS, IN_WEATHER
from benchmarks.judge.exceptions import UNEXPLAINED
from benchmarks.judge.flagger import Analysis, FlaggerCanary
from benchmarks.judge.kayenta import KayentaStage, Label, MetricConfig, classify, mann_whitney, score
from benchmarks.judge.result import HORIZON_S
from benchmarks.judge.tool import Outcome, Tool
from benchmarks.judge.trials import Trial, run_trial, trials
from benchmarks.judge.worlds import WORLDS
from rollout.judge import Pair, Verdict
from rollout.signals.plan import Signals
from rollout.simulate.traffic import Behaviour, Scenario, Traffic
from rollout.spec import RolloutSpec
from tests.support.paths import ROOT

WINDOW_S = 5.0
GOOD, BAD, SILENT = Pair(0, 100), Pair(50, 100), Pair(0, 0)


def end_of(tool: Tool, canary: Iterable[Pair], stable: Pair = GOOD) -> tuple[Outcome | None, float]:
    """The outcome after these windows, and its time."""
    elapsed_s = 0.0
    for pair in canary:
        elapsed_s += WINDOW_S
        if outcome := tool.observe(elapsed_s, stable, pair):
            return outcome, elapsed_s
    return None, elapsed_s


def minutes(*each: Pair) -> list[Pair]:
    """Windows with each of the pairs for a minute."""
    return [pair for pair in each for _ in range(12)]


def phases(metric: Metric, ratios: Iterable[float | None]) -> list[Phase]:
    """The phase of the metric after each measurement."""
    result = MetricResult(metric)
    return [result.add(metric.measure(ratio)) for ratio in ratios]


# ---- Argo Rollouts


@pytest.mark.parametrize(("limit", "last"), [(0, 1), (3, 4)])
def test_argo_fails_a_metric_on_one_failure_more_than_its_limit(limit: int, last: int) -> None:
    """`failureLimit` counts all failures; good measurements in between do not reset it."""
    seen = phases(Metric(0.95, failure_limit=limit), [1.0, 0.9] * 5)
    assert seen.index(Phase.FAILED) == 2 * last - 1


def test_argo_counts_nan_as_a_failure_if_only_success_is_defined() -> None:
    """0/0 is not a success: docs/features/analysis.md, "NaN and Infinity"."""
    assert Metric(0.95).measure(math.nan) is Phase.FAILED


def test_argo_is_inconclusive_between_the_two_conditions() -> None:
    """It is neither success nor failure; one such measurement exceeds the default limit of 0."""
    metric = Metric(0.95, failure_below=0.5)
    assert phases(metric, [1.0, 0.7]) == [Phase.RUNNING, Phase.INCONCLUSIVE]


def test_argo_accepts_four_errors_in_a_row_but_not_five() -> None:
    """An empty result is an Error; `consecutiveErrorLimit` is 4, and a measurement resets the count."""
    empty = [None] * 4
    assert phases(Metric(0.95), [*empty, 1.0, *empty, None])[-2:] == [Phase.RUNNING, Phase.ERROR]


@pytest.mark.parametrize(
    ("metric", "ratios", "end"),
    [
        pytest.param(Metric(0.95, count=3), [1.0] * 3, Phase.SUCCESSFUL, id="count"),
        pytest.param(Metric(0.95, failure_limit=1, count=3), [1.0, 0.0, 1.0], Phase.SUCCESSFUL, id="within-limit"),
        pytest.param(
            Metric(0.95, failure_limit=-1, consecutive_success_limit=2),
            [0.0, 1.0, 0.0, 1.0, 1.0],
            Phase.SUCCESSFUL,
            id="successes-in-a-row",
        ),
        pytest.param(
            Metric(0.95, failure_limit=3, consecutive_success_limit=3, count=3),
            [1.0, 0.0, 1.0],
            Phase.INCONCLUSIVE,
            id="neither-limit",
        ),
        pytest.param(
            Metric(0.95, failure_limit=-1, consecutive_success_limit=3, count=3),
            [1.0, 0.0, 1.0],
            Phase.FAILED,
            id="no-failure-limit",
        ),
        pytest.param(Metric(0.95, count=3), [1.0, None, 1.0], Phase.RUNNING, id="errors-do-not-count"),
    ],
)
def test_argo_ends_a_metric_as_documented(metric: Metric, ratios: list[float | None], end: Phase) -> None:
    """These are the rows of the table under "ConsecutiveSuccessLimit and FailureLimit"."""
    assert phases(metric, ratios)[-1] is end


def test_argo_promotes_after_the_last_pause() -> None:
    """There are four steps of five minutes."""
    assert end_of(ArgoRollout(Metric(0.95)), [GOOD] * 400) == ("promoted", 1200.0)


def test_argo_aborts_at_the_first_bad_minute_without_a_failure_limit() -> None:
    """The first measurement is after one minute, as `initialDelay` says."""
    assert end_of(ArgoRollout(Metric(0.95)), [BAD] * 400) == ("rolled_back", 60.0)


def test_argo_aborts_after_five_errors_without_any_series() -> None:
    """The first error is after a minute, each next one 10 seconds later."""
    assert end_of(ArgoRollout(Metric(0.95, failure_limit=3)), [SILENT] * 400) == ("rolled_back", 100.0)


def test_argo_aborts_when_traffic_stops() -> None:
    """The series exist but do not grow: 0/0 at the first measurement after a minute without requests."""
    assert end_of(ArgoRollout(Metric(0.95)), minutes(GOOD, GOOD, SILENT)) == ("rolled_back", 180.0)


def test_argo_waits_for_a_person_when_a_run_is_inconclusive() -> None:
    """An Inconclusive run pauses the rollout at its step."""
    assert end_of(ArgoRollout(Metric(0.95, failure_below=0.1)), [BAD] * 400) == ("held", 60.0)


# ---- Flagger


def test_flagger_promotes_after_interval_times_weight_over_step() -> None:
    """The formula of its documentation, 1m x 50 / 2."""
    assert end_of(FlaggerCanary(Analysis()), [GOOD] * 400) == ("promoted", 1500.0)


@pytest.mark.parametrize("canary", [BAD, SILENT])
def test_flagger_rolls_back_one_interval_after_the_tenth_failed_check(canary: Pair) -> None:
    """A check without a value fails like a bad one."""
    assert end_of(FlaggerCanary(Analysis()), [canary] * 400) == ("rolled_back", 660.0)


def test_flagger_counts_all_failed_checks_of_a_release() -> None:
    """Ten bad minutes between good ones are enough."""
    assert end_of(FlaggerCanary(Analysis()), minutes(*[GOOD, BAD] * 11)) == ("rolled_back", 1260.0)


def test_flagger_keeps_its_weight_while_checks_fail() -> None:
    """The ramp continues from there."""
    canary = FlaggerCanary(Analysis())
    end_of(canary, minutes(GOOD, GOOD))
    before = canary.weight_percent
    end_of(canary, minutes(BAD))
    assert canary.weight_percent == before == 6


def test_flagger_accepts_a_value_at_its_threshold() -> None:
    """99 % satisfies `min: 99`."""
    assert end_of(FlaggerCanary(Analysis()), [Pair(1, 100)] * 400)[0] == "promoted"


# ---- Kayenta


def test_kayenta_fails_only_from_eight_bad_points_of_ten_on() -> None:
    """spinnaker issue 6278: seven points that are a hundred times worse pass, whatever their size."""
    first = next(k for k in range(11) if classify([1.0] * 10, [100.0] * k + [1.0] * (10 - k)) is Label.HIGH)
    assert first == 8


def test_kayenta_intervals_are_those_of_its_own_root_finder() -> None:
    """These are the numbers in issue 6278, to the last digits."""
    shift = mann_whitney(np.array([100.0] * 7 + [1.0] * 3), np.ones(10))
    printed = (6.825022991538781e-05, 99.0, 98.99992904170193)
    assert (shift.lower, shift.upper, shift.estimate) == pytest.approx(printed, rel=1e-12)


@pytest.mark.parametrize(
    ("array", "kayenta", "point", "log_e"),
    [
        (ARRAYS[0], Label.PASS, 3, 14.091250),
        (ARRAYS[1], Label.HIGH, 3, 16.647594),
        (ARRAYS[2], Label.PASS, None, 1.229058),
        (ARRAYS[3], Label.PASS, None, 4.493223),
        (ARRAYS[4], Label.HIGH, 5, 4.610544),
        (ARRAYS[5], Label.PASS, 6, 15.144876),
    ],
    ids=lambda value: f"{value.issue} {value.story}" if isinstance(value, Array) else None,
)
def test_data_in_which_mann_whitney_found_nothing(
    array: Array, kayenta: Label, point: int | None, log_e: float
) -> None:
    """What users saw Kayenta say about a series, and what our whole judge says about it without a margin."""
    judgement, failed_at = our_judgement(array, margin=0.0)
    assert (kayenta_label(array), failed_at) == (kayenta, point)
    assert judgement.log_e == pytest.approx(log_e, abs=1e-6)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.issue} {array.story}")
def test_our_judge_passes_none_of_these_arrays(array: Array) -> None:
    """With all defaults, a series that does not FAIL does not pass either."""
    assert our_judgement(array)[0].verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)


def test_kayenta_scores_a_missing_baseline_as_zero() -> None:
    """kayenta issue 799 with a control without any data: a critical metric scores 0, healthy or not."""
    assert score(classify([math.nan] * 5, [1.0, 4.0, 2.0, 3.0, 1.0])) == 0


def test_kayenta_passes_constant_series_of_equal_value_and_any_length() -> None:
    """Two constant series of the same value count as one observation."""
    assert classify([0.0] * 50, [0.0] * 49) is Label.PASS


@pytest.mark.parametrize(
    ("config", "label"),
    [
        (MetricConfig(), Label.HIGH),
        (MetricConfig(direction="increase"), Label.HIGH),
        (MetricConfig(direction="decrease"), Label.PASS),
        (MetricConfig(allowed_increase=20.0), Label.PASS),
    ],
)
def test_kayenta_obeys_direction_and_effect_size(config: MetricConfig, label: Label) -> None:
    """A tenfold rise is High, unless only falls count or only a rise of twenty times."""
    assert classify(range(1, 11), range(10, 110, 10), config) is label


def test_kayenta_judges_each_stage_once() -> None:
    """There are four stages with 60 points of five seconds."""
    stage = KayentaStage(7, steps=(1, 5, 25, 50), point_s=5.0, points_per_run=60, runs=1)
    assert end_of(stage, [GOOD] * 400, stable=Pair(0, 10_000)) == ("promoted", 1200.0)


def test_kayenta_fails_at_the_first_analysis_under_the_marginal_score() -> None:
    """There are three analyses an hour apart; half of all requests fail, so the first one ends the release."""
    stage = KayentaStage(7, steps=(5,), point_s=60.0, points_per_run=60, runs=3)
    assert end_of(stage, [BAD] * 3000, stable=Pair(20, 2000)) == ("rolled_back", 3600.0)


def test_kayentas_estimate_of_a_plain_shift_is_that_of_r() -> None:
    """For x = 10, 20, 30, 40 and y = 1, 2, 3, 4, R's wilcox.test estimates 22.5."""
    assert mann_whitney(np.array([10.0, 20, 30, 40]), np.array([1.0, 2, 3, 4])).estimate == pytest.approx(22.5)


@pytest.mark.parametrize("shift", [-0.7, 0.0, 0.123456])
def test_kayenta_finds_a_shift_within_its_tolerance(shift: float) -> None:
    """The canary's points are the baseline's plus a shift; estimate and interval contain it."""
    baseline = np.arange(1.0, 31.0)
    found = mann_whitney(baseline + shift, baseline)
    assert found.estimate == pytest.approx(shift, abs=1e-4)
    assert found.lower < shift < found.upper


# ---- the benchmark


def test_a_canary_without_counts_still_serves_requests() -> None:
    """Stable's counts are those of its share of traffic; the canary's are empty."""
    scenario = Scenario(100.0, Behaviour(0.01), Behaviour(0.5), is_canary_counted=False)
    windows = [window for _ in range(100) for window in Traffic(scenario, 7).window(0.5)]
    assert sum((window.canary for window in windows), SILENT) == SILENT
    assert sum(window.stable.total for window in windows) == pytest.approx(100 * 250, rel=0.1)


def test_the_watch_after_promotion_counts_for_kanaria() -> None:
    """All requests fail after ten minutes. It was promoted before, and the guard rolls it back within half a minute."""
    scenario = Scenario(100.0, Behaviour(0.001), Behaviour(1.0), harm_after_s=600.0)
    spec = RolloutSpec(
        steps=(50, 100),
        signals=Signals().only("errors"),
    )
    result = ours.lead(spec, scenario, (7,))
    assert (result.outcome, result.cause) == ("rolled_back", "guard")
    assert result.full_s is not None
    assert result.full_s < 600 < result.stopped_s < 630


@pytest.mark.parametrize("contender", [contender.key for contender in CONTENDERS])
def test_no_tool_promotes_a_canary_that_was_never_measured(contender: str) -> None:
    """No count of the canary ever arrives."""
    assert run_trial(Trial("no-data", contender, 7, 0)).outcome != "promoted"


def test_harm_after_a_wrong_promotion_counts_until_the_horizon() -> None:
    """Argo's 95 % promotes 2.5 % errors after 20 minutes; from then on 2 of 100 requests are harmed in each second."""
    result = run_trial(Trial("x5", "argo-95-3", 7, 0))
    assert result.outcome == "promoted"
    assert result.harmed == pytest.approx(2 * (HORIZON_S - 1200 + 300 * (0.01 + 0.05 + 0.25 + 0.5)))


def test_the_same_trial_gives_the_same_result() -> None:
    """The numbers on the page can be reproduced."""
    trial = Trial("x10", "kayenta-ramp", 7, 3)
    assert run_trial(trial) == run_trial(trial)


def test_every_contender_runs_every_case_equally_often() -> None:
    """No tool is left out of cases in which it would look bad or good."""
    todo = trials(2, 3, seed=7)
    in_cases, in_worlds = 2 * len(CASES) * len(CONTENDERS), 3 * len(WORLDS) * len(IN_WEATHER)
    assert len(set(todo)) == len(todo) == in_cases + in_worlds


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files that the command writes for a few releases of every tool on every case and in every world, by name."""
    out = tmp_path_factory.mktemp("benchmarks")
    options = ["--runs", "2", "--weather", "1", "--seed", "7", "--jobs", "1", "--write", "--out", str(out)]
    result = CliRunner().invoke(app, ["judge", *options])
    assert result.exit_code == 0, result.output
    return {path.name: path.read_text() for path in out.iterdir()}


@pytest.mark.exhaustive
def test_the_page_has_the_settings_and_the_source_of_every_tool(small: dict[str, str]) -> None:
    """A reader who doubts a number can look up what was simulated."""
    assert all(part in small["judge.md"] for each in CONTENDERS for part in (each.settings, each.source))


@pytest.mark.exhaustive
def test_the_page_shows_every_chart(small: dict[str, str]) -> None:
    """Each SVG is well-formed and linked."""
    for name in small.keys() - {"judge.md"}:
        assert ET.fromstring(small[name]).tag.endswith("svg")  # noqa: S314 - we wrote it
        assert f"]({name})" in small["judge.md"]


@pytest.mark.exhaustive
def test_the_committed_page_is_what_the_command_writes(small: dict[str, str]) -> None:
    """This covers every line outside the tables except numbers, from the third line on."""
    now, committed = (
        [line for line in text.splitlines() if not line.startswith(("|", "Written by")) and line != "Nowhere."]
        for text in (small["judge.md"], (ROOT / "docs/benchmarks/judge.md").read_text("utf-8"))
    )
    assert now == committed


def test_every_result_in_which_another_tool_is_better_is_explained() -> None:
    """The committed page gives the reason."""
    assert UNEXPLAINED not in (ROOT / "docs/benchmarks/judge.md").read_text()
