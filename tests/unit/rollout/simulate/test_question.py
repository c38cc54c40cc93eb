"""Flags describe the traffic; an impossible value is refused with the flag, what was seen and what to do."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rollout.simulate.cli import app
from rollout.simulate.question import QuestionError, better_of, parse_question, scenario_of
from rollout.simulate.traffic import Scenario
from rollout.spec import RolloutSpec, parse_spec

QUICK = ("--rps", "200", "--worse", "+30%", "--releases", "10", "--jobs", "1", "--history", "1m")


def asked(spec: RolloutSpec | None = None, **flags: str) -> Scenario:
    return scenario_of(parse_question(flags), spec or RolloutSpec())


def test_the_default_regression_is_five_times_the_errors() -> None:
    """`kanaria simulate` without flags gives an answer."""
    assert asked(base="0.2%").canary.error_ratio == pytest.approx(0.01)


def test_own_signals_get_worse_together() -> None:
    """This applies to shares of bad events only, as the distribution of numbers is unknown."""
    custom = "refusals: {bad: a_total, of: b_total}, words: {histogram: w, between: [0, 9], worse: lower}"
    plan = parse_spec(f"signals: {{custom: {{{custom}}}}}")
    scenario = asked(plan, own="1%", own_worse="3x")
    assert scenario.stable.own_ratios == (("custom.refusals", 0.01),)
    assert scenario.canary.own_ratios == (("custom.refusals", pytest.approx(0.03)),)
    assert scenario.harm == pytest.approx(0.02)
    with pytest.raises(QuestionError, match="does not judge"):
        asked(own_worse="3x")


def test_a_better_canary_has_fewer_wrong_labels() -> None:
    """By a factor: half if the plan requires better, unchanged otherwise; without labels nothing can prove it."""
    plan, strict = RolloutSpec(), RolloutSpec(require="better")
    labelled = {"labels": "20%", "wrong": "40%"}

    def wrong(spec: RolloutSpec, **flags: str) -> float | None:
        question = parse_question(flags)
        better = better_of(question, scenario_of(question, spec), spec)
        return better.canary.wrong_label_ratio if better else None

    assert wrong(plan, **labelled, better="0.1x") == pytest.approx(0.04)
    assert (wrong(plan, **labelled), wrong(strict, **labelled)) == (None, pytest.approx(0.2))
    for flags in ({"better": "0.1x"}, {"better": "0.1x", "labels": "20%", "wrong": "0%"}):
        with pytest.raises(QuestionError, match="--better needs labels, some of them wrong on stable"):
            wrong(plan, **flags)
    with pytest.raises(QuestionError, match="--better 2x: write a number below 1"):
        wrong(plan, **labelled, better="2x")
    with pytest.raises(QuestionError, match="give the share of predictions whose true label arrives"):
        wrong(strict)


@pytest.mark.parametrize(("worse", "ratio"), [("5x", 0.05), ("1.5x", 0.015), ("+2%", 0.01 + 0.02 * 0.99)])
def test_errors_grow_by_a_factor_or_by_an_added_share(worse: str, ratio: float) -> None:
    """The added share applies to requests that were good."""
    assert asked(base="1%", worse=worse).canary.error_ratio == pytest.approx(ratio)


def test_rejections_grow_by_a_factor_or_by_an_added_share() -> None:
    """Stable rejects invalid requests too; without such requests the added share is all."""
    assert asked(rejected="10%", stricter="2x").canary.rejected_ratio == pytest.approx(0.2)
    scenario = asked(stricter="+10%")
    assert (scenario.stable.rejected_ratio, scenario.canary.rejected_ratio) == (0.0, 0.1)
    assert scenario.harm == pytest.approx(0.1)
    assert scenario.canary.error_ratio == scenario.stable.error_ratio


def test_latency_is_log_normal_through_median_and_p99() -> None:
    """Half of the answers are slower than the median, and one in a hundred is slower than the 99th percentile."""
    scenario = asked(median="50ms", p99="250ms")
    assert dict(scenario.stable.slow_ratios)[50] == pytest.approx(0.5)
    assert dict(scenario.stable.slow_ratios)[250] == pytest.approx(0.01, rel=1e-3)


def test_a_slower_canary_is_slower_at_every_bound() -> None:
    """A factor applies to all answers: the share over 100 ms is the share that was over 50 ms before."""
    scenario = asked(slower="2x")
    assert dict(scenario.canary.slow_ratios)[100] == pytest.approx(dict(scenario.stable.slow_ratios)[50])


def test_an_added_share_of_slow_answers_exceeds_every_bound() -> None:
    """Five per cent of the answers that were in time become slower than every bound."""
    scenario = asked(slower="+5%")
    assert dict(scenario.canary.slow_ratios)[250] == pytest.approx(0.05, rel=0.01)


def test_a_shifted_class_takes_its_share_from_all_other_classes() -> None:
    """One of 10 classes rises to 40 %; the others keep their proportions."""
    assert asked(shift="3=40%").canary.class_shares == pytest.approx((0.6 / 9,) * 3 + (0.4,) + (0.6 / 9,) * 6)


def test_signals_that_the_plan_leaves_out_are_not_simulated() -> None:
    """They would not be judged."""
    spec = parse_spec("signals: {latency: null, predictions: null, low_confidence: null, labels: null}")
    stable = asked(spec).stable
    assert (stable.slow_ratios, stable.class_shares, stable.low_confidence_ratio) == ((), (), None)


@pytest.mark.parametrize(
    ("flags", "seen"),
    [
        ({"rps": "-3"}, "--rps -3"),
        ({"rps": "many"}, "--rps many"),
        ({"base": "120%"}, "--base 120%"),
        ({"worse": "abc"}, "--worse abc"),
        ({"worse": "0.5x"}, "--worse must raise"),
        ({"base": "0%"}, "--worse must raise"),
        ({"base": "60%", "worse": "2x"}, "--worse must raise"),
        ({"stricter": "2x"}, "--stricter must raise 0.0000%"),
        ({"rejected": "5"}, "--rejected 5"),
        ({"slower": "0.5x"}, "--slower must be"),
        ({"shift": "10=40%"}, "numbered 0 to 9"),
        ({"classes": "1"}, "--classes 1"),
        ({"median": "200ms"}, "--p99 must be longer"),
        ({"retries": "0.5"}, "--retries 0.5"),
        ({"shared_bursts": "x"}, "--shared-bursts x"),
        ({"wronger": "2x"}, "--labels 0%"),
    ],
)
def test_impossible_values_are_refused(flags: dict[str, str], seen: str) -> None:
    """The error gives the flag and what is wrong with it."""
    with pytest.raises(QuestionError) as caught:
        asked(**flags)
    assert seen in caught.value.saw


def test_harm_that_the_plan_does_not_judge_is_refused() -> None:
    """A simulation would only show that the plan cannot find it."""
    for signal, harm in (("latency", {"slower": "2x"}), ("rejected", {"stricter": "+5%"})):
        with pytest.raises(QuestionError, match="does not judge"):
            asked(parse_spec(f"signals: {{{signal}: null}}"), **harm)


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_the_command_prints_text_and_writes_a_page(tmp_path: Path) -> None:
    """Text goes to standard output, pictures to a file."""
    code, out, _ = invoke(*QUICK, "--out", str(tmp_path / "page.html"))
    assert code == 0
    assert "A harmless canary" in out
    assert (tmp_path / "page.html").stat().st_size > 100_000


def test_the_command_prints_json_for_programs(tmp_path: Path) -> None:
    """Standard output has one JSON object and nothing else."""
    code, out, _ = invoke(*QUICK, "--json", "--out", str(tmp_path / "page.html"))
    assert (code, json.loads(out)["releases"]) == (0, 10)


@pytest.mark.parametrize(
    "arguments", [("--rps", "0"), ("--spec", "nowhere.yaml"), ("--worse", "worse"), ("--releases", "1")]
)
def test_bad_input_exits_with_2(arguments: tuple[str, ...]) -> None:
    """The reason is on standard error."""
    code, out, err = invoke(*arguments)
    assert (code, out) == (2, "")
    assert err
