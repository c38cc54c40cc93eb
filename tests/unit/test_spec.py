"""rollout.yaml is checked once, and says what is wrong with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.errors import SpecError
from rollout.spec import RolloutSpec, parse_spec


def test_an_empty_file_means_the_defaults() -> None:
    """Everything has a default, so an empty plan is a plan."""
    assert parse_spec("") == RolloutSpec()


def test_people_may_write_durations_and_shares_with_units() -> None:
    """`10m` is 600 seconds and `0.5%` is 0.005."""
    spec = parse_spec("step_deadline: 20m\nrisk_budget: 0.25%\nwatch: 1h\nwindow: 2s\n")
    assert (spec.step_deadline, spec.risk_budget, spec.watch, spec.window) == (1200.0, 0.0025, 3600.0, 2.0)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("steps: [5, 1, 100]", "steps", "must rise"),
        ("steps: [5, 5, 100]", "steps", "must rise"),
        ("steps: [5, 25]", "steps", "exactly 100"),
        ("steps: [0, 100]", "steps", "at least 1"),
        ("steps: []", "steps", "must rise"),
        ("steps: [5, shadow, 100]", "steps", "first step"),
        ("steps: [5, 75, 100]", "steps", "too little stable traffic"),
        ("steps: [0.5, 100]", "steps", "at least 1"),
        ("steps: [1.255, 100]", "steps", "two decimals"),
        ("steps: [1, .nan, 100]", "steps", "two decimals"),
        ("steps: [1, .inf, 100]", "steps", "must rise"),
        ("steps: ['5 %', 100]", "steps", "a percentage"),
        ("steps: [true, 100]", "steps", "write `auto`"),
        ("steps: fast", "steps", "write `auto`"),
        ("stepz: [5, 100]", "stepz", "Extra inputs"),
        ("alpha: 2", "alpha", "less than 1"),
        ("alpha: 0%", "alpha", "greater than 0"),
        ("risk_budget: lots", "risk_budget", "such as 0.5%"),
        ("step_deadline: soon", "step_deadline", "such as 30s"),
        ("step_deadline: .inf", "step_deadline", "less than or equal"),
        ("on_deadline: promote", "on_deadline", "'rollback' or 'hold'"),
        ("soak: 20m", "the file", "`soak` must be shorter"),
        ("signals: {latency: {slower_than_ms: [33]}}", "signals.latency.slower_than_ms", "choose among these"),
        ("signals: {low_confidence: {below: 0.55}}", "signals.low_confidence.below", "choose one of these"),
        ("signals: {errors: {tolerance: 0.5}}", "signals.errors.tolerance", "greater than or equal to 1"),
        ("signals: {errors: null}", "signals.errors", "valid"),
        ("signals: {disagreement: {at_most: 1}}", "signals.disagreement.at_most", "less than 1"),
        ("signals: {disagreement: {at_most: few}}", "signals.disagreement.at_most", "such as 0.5%"),
        ("sticky: 'cookie monster'", "sticky", "header:x-user-id"),
    ],
)
def test_an_impossible_plan_names_the_place_and_the_reason(text: str, place: str, words: str) -> None:
    """The message says where, what was seen and what to write instead."""
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert f"`{place}`" in caught.value.saw
    assert words in caught.value.saw


@pytest.mark.parametrize("text", ["[1, 2]", "just words", "a: [", "a: b: c"])
def test_what_is_not_a_mapping_is_refused(text: str) -> None:
    """A list, a sentence or broken YAML is an error on purpose, not a stack trace."""
    with pytest.raises(SpecError):
        parse_spec(text)


def test_sticky_names_a_header() -> None:
    """`header:X-User-Id` keeps callers with the same value on one side."""
    assert parse_spec("sticky: header:X-User-Id").sticky == "x-user-id"
    assert parse_spec("sticky: none").sticky is None


def test_a_signal_that_is_left_out_is_not_judged() -> None:
    """`predictions: null` takes the family out of the rules and of what is waited for."""
    spec = parse_spec("signals: {predictions: null}")
    assert "class" not in spec.judge_config().rules
    assert "class" not in spec.signals.expected()


def test_a_tolerance_in_the_plan_reaches_the_judge() -> None:
    """What people set per signal is what the judge uses."""
    assert parse_spec("signals: {latency: {tolerance: 1.5}}").judge_config().rules["latency"].tolerance == 1.5


def test_the_share_that_may_differ_in_the_shadow_reaches_the_judge() -> None:
    """It is a limit of its own, whatever stable does; the rule may be left out or ask a person."""
    rules = parse_spec("signals: {disagreement: {at_most: 25%, on_fail: hold}}").judge_config().rules
    assert (rules["disagreement"].limit, rules["disagreement"].on_fail) == (0.25, "hold")
    assert "disagreement" not in parse_spec("signals: {disagreement: null}").judge_config().rules


@given(
    hundredths=st.lists(st.integers(100, 5000), unique=True, max_size=6).map(sorted),
    has_shadow=st.booleans(),
    budget=st.floats(0.0001, 0.5),
)
def test_a_plan_survives_the_ledger(hundredths: list[int], has_shadow: bool, budget: float) -> None:
    """A plan that is written as JSON and read back is the same plan."""
    steps = (*(["shadow"] if has_shadow else []), *(each / 100 for each in hundredths), 100)
    spec = RolloutSpec(steps=steps, risk_budget=budget)
    assert RolloutSpec.model_validate_json(spec.model_dump_json()) == spec


def test_sticky_callers_are_judged_by_the_users_affected() -> None:
    """What may fail the canary is users, with the settings of the errors; the budget keeps counting every error."""
    spec = parse_spec("sticky: header:x-user-id\nsignals: {errors: {tolerance: 2, on_fail: hold}}")
    rules, plain = spec.judge_config().rules, parse_spec("").judge_config().rules
    users, errors = rules["affected_users"], rules["errors"]
    assert (users.weight, users.tolerance, users.on_fail) == (plain["errors"].weight, 2, "hold")
    assert [(rule.weight > 0, rule.budgeted) for rule in (users, errors)] == [(True, False), (False, True)]
    assert "affected_users" in spec.expected()


def test_callers_who_are_not_sticky_change_nothing() -> None:
    """The default has no family of users."""
    spec = parse_spec("")
    assert "affected_users" not in {*spec.judge_config().rules, *spec.expected()}
