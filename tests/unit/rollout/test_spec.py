"""rollout.yaml is checked once, and each mistake is explained."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.errors import SpecError
from rollout.explain.plan import plan_in_words
from rollout.judge import Pair, Window
from rollout.judge.judge import Judge
from rollout.ledger.events import ReleaseRequested
from rollout.ledger.migrations import NUMBER, read_event
from rollout.signals.options import WrongLabel
from rollout.spec import RolloutSpec, parse_spec


def test_an_empty_file_gives_the_defaults() -> None:
    """Everything has a default, so an empty plan is valid."""
    assert parse_spec("") == RolloutSpec()


def test_durations_and_shares_may_have_units() -> None:
    """`10m` is 600 seconds and `0.5%` is 0.005."""
    spec = parse_spec("step_deadline: 20m\nrisk_budget: 0.25%\nwatch: 1h\nwindow: 2s\n")
    assert (spec.step_deadline, spec.risk_budget.share, spec.watch, spec.window) == (1200.0, 0.0025, 3600.0, 2.0)


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
        ("stepz: [5, 100]", "stepz", "did you mean `steps`?"),
        ("step: auto", "step", "the keys of a plan are: steps, step_deadline, on_deadline, soak, risk_budget, alpha"),
        ("5: x", "5", "the keys of a plan are: steps"),
        ("on: x", "true", "the keys of a plan are: steps"),
        ("guards: {errors: 1%}", "guards.errors", "the keys of `guards` are: error_ratio"),
        ("guards: 20%", "guards", "write keys such as `{error_ratio: 20%}`, or delete the line"),
        ("steps: 5", "steps", "write `auto`"),
        ("alpha: 2", "alpha", "less than 100%"),
        ("alpha: 0%", "alpha", "more than 0%"),
        ("alpha: yes", "alpha", "YAML reads `on` and `yes` as that, too"),
        ("alpha: yes", "alpha", "such as 0.5%"),
        ("risk_budget: 0.5", "risk_budget", "write `0.5%` or `50%`"),
        ("alpha: 0.01", "alpha", "write `0.01%` or `1%`"),
        ("holdback: 0.05", "holdback", "write `0.05%` or `5%`"),
        ("guards: {error_ratio: 0.2}", "guards.error_ratio", "write `0.2%` or `20%`"),
        ("signals: {disagreement: {at_most: 0.1}}", "signals.disagreement.at_most", "write `0.1%` or `10%`"),
        ("risk_budget: 5.0e-3", "risk_budget", "write `0.005%` or `0.5%`"),
        ("risk_budget: lots", "risk_budget", "such as 0.5%"),
        ("step_deadline: soon", "step_deadline", "such as 30s"),
        ("step_deadline: .inf", "step_deadline", "at most 7d"),
        ("window: -1s", "window", "more than 0"),
        ("soak: 1x", "soak", "such as 30s, 10m or 1h"),
        ("on_deadline: promote", "on_deadline", "write `rollback` or `hold`"),
        ("on_drift: off", "on_drift", "write `report` or `rollback`"),
        ("warmup: 1x", "warmup", "such as 30s or 10m, at most 7d, or `none`"),
        ("warmup: -5s", "warmup", "or `none`"),
        ("warmup: 8d", "warmup", "at most 7d"),
        ("warmup: .inf", "warmup", "at most 7d"),
        ("warmup: no", "warmup", "or `none`"),
        ("warmup: [60s]", "warmup", "or `none`"),
        ("warm_up: 60s", "warm_up", "did you mean `warmup`?"),
        ("holdback: 50%", "holdback", "less than 50%, or `none`"),
        ("holdback: 5", "holdback", "a share such as 5%"),
        ("holdback: -1%", "holdback", "or `none`"),
        ("holdback: few", "holdback", "or `none`"),
        ("holdback: .nan", "holdback", "or `none`"),
        ("hold_back: 5%", "hold_back", "did you mean `holdback`?"),
        ("soak: 20m", "soak", "`soak` must be shorter"),
        ("soak: 20m", "step_deadline", "`soak` is 20 min, `step_deadline` is 10 min"),
        ("window: 10m", "window", "`window` must be shorter"),
        ("signals: {latency: {slower_than_ms: [33]}}", "signals.latency.slower_than_ms", "choose among these"),
        ("signals: {latency: {slower_than_ms: 25}}", "signals.latency.slower_than_ms", "in a list such as [25, 100]"),
        ("signals: {latency: {slower_than_ms: [fast]}}", "signals.latency.slower_than_ms", "choose among these"),
        ("signals: {latency: {bounds_ms: [25]}}", "signals.latency.bounds_ms", "are: on_fail, tolerance, slower_than"),
        ("signals: {low_confidence: {below: 0.55}}", "signals.low_confidence.below", "choose one of these"),
        ("signals: {low_confidence: {below: low}}", "signals.low_confidence.below", "choose one of these"),
        ("signals: {wrong_label: {required: maybe}}", "signals.wrong_label.required", "write `true` or `false`"),
        (
            "signals: {wrong_label: {after: 7m}}",
            "signals.wrong_label.after",
            "at the ages 0s, 10s, 1m, 5m, 10m, 30m, 1h",
        ),
        ("signals: {wrong_label: {after: soon}}", "signals.wrong_label.after", "choose one of these"),
        ("signals: {wrong_label: {after: off}}", "signals.wrong_label.after", "choose one of these"),
        (
            "signals: {wrong_label: {after: 10m, required: true}}",
            "step_deadline",
            "`signals.wrong_label` is required `after: 10 min`, `step_deadline` is 10 min",
        ),
        ("require: better\nsignals: {paired_label: null}", "require", "judge `paired_label`"),
        ("require: better\nsteps: [5, 100]", "require", "begin `steps` with `shadow`"),
        ("golden: mine", "golden.requests", "write `own` or `recorded`"),
        ("golden: {requests: recorded, leave: [/a]}", "golden.leave", "the keys of `golden` are: requests, leave_out"),
        ("golden: {leave_out: /orders}", "golden.leave_out", "[/orders, /users/{id}]"),
        ("golden: {leave_out: [orders]}", "golden.leave_out", "write a list of routes"),
        ("golden: [recorded]", "golden.requests", "write `own` or `recorded`"),
        ("may_break: /rare", "may_break", "write a list of routes"),
        ("may_break: [rare]", "may_break", "write a list of routes"),
        ("may_break: [/detect label score]", "may_break", "[/detect, /detect confidence]"),
        ("may_break: [5]", "may_break", "write a list of routes"),
        ("may_break: yes", "may_break", "write a list of routes"),
        ("require: best", "require", "write `safe` or `better`"),
        ("segments: x tenant", "segments.header", "write `none` or `header:x-tenant`"),
        ("segments: 'header:'", "segments.header", "write `none` or `header:x-tenant`"),
        ("segments: [x-tenant]", "segments", "or `header:x-tenant`"),
        ("segments: {header: x-tenant, value: [a]}", "segments.value", "did you mean `values`?"),
        ("segments: {values: [a]}", "segments.header", "header"),
        ("segments: header:Authorization", "segments.header", "its values are secrets"),
        ("segments: header:x-api-key", "segments.header", "its values are secrets"),
        ("segments: {header: x-tenant, values: acme}", "segments.values", "list at most 20 different values"),
        ("segments: {header: x-tenant, values: [1, 2]}", "segments.values", "as text, such as [acme, '42']"),
        ("segments: {header: x-tenant, values: [a, a]}", "segments.values", "different values"),
        (f"segments: {{header: x-tenant, values: {[str(n) for n in range(21)]}}}", "segments.values", "at most 20"),
        ("segments: {header: x-tenant, values: [other]}", "segments.values", "neither `other` nor `absent`"),
        ("segments: {header: x-tenant, values: ['a b']}", "segments.values", "cannot be a segment"),
        ("segments: {header: x-tenant, values: ['']}", "segments.values", "cannot be a segment"),
        ("segments: header:x-tenant\nsticky: header:x-user-id", "segments", "leave one of the two out"),
        ("signals: {segment: {tolerance: 2}}", "segments", "write `segments: header:x-tenant`"),
        ("signals: {errors: {tolerance: 0.5}}", "signals.errors.tolerance", "write a number of at least 1"),
        ("signals: {errors: {tolerance: yes}}", "signals.errors.tolerance", "a number such as 1.25"),
        ("signals: {errors: {tolerance: high}}", "signals.errors.tolerance", "a number such as 1.25"),
        ("signals: {errors: {tolerance: .inf}}", "signals.errors.tolerance", "finite number"),
        ("signals: {errors: null}", "signals.errors", "errors cannot be left out, because the guard"),
        ("signals: {errors: off}", "signals.errors", "errors cannot be left out, because the guard"),
        ("signals: {class: off}", "signals.class", "or `null` to leave the signal out"),
        (
            "signals: {latencies: {}}",
            "signals.latencies",
            "errors, rejected, route, segment, latency, typical_latency, class, low_confidence",
        ),
        ("signals: {latencies: {}}", "signals.latencies", "did you mean `latency`?"),
        ("signals: {'latency:25': {}}", "signals.latency:25", "write `latency`"),
        ("signals: {latency: 25}", "signals.latency", "write keys such as `{tolerance: 1.25}`"),
        ("signals: {disagreement: 5%}", "signals.disagreement", "write keys such as `{at_most: 10%}`"),
        ("signals: [errors]", "signals", "write keys such as `{latency: {tolerance: 1.5}}`"),
        ("signals: 5", "signals", "or delete the line"),
        ("signals: {7: {}}", "signals.7", "the keys of `signals` are: errors, rejected, route, segment, latency"),
        (
            "signals: {class: {}, predictions: null}",
            "signals.predictions",
            "`predictions` is the former name of `class`",
        ),
        ("signals: {labels: {}, wrong_label: {}}", "signals.labels", "keep one of the two"),
        ("signals: {predictions: off}", "signals.predictions", "or `null` to leave the signal out"),
        ("signals: {predictions: {gross: 0}}", "signals.predictions.gross", "write a number of at least 1"),
        ("signals: {class: {gross: off}}", "signals.class.gross", "or `null` for no such limit"),
        ("signals: {predictions: {gros: 3}}", "signals.predictions.gros", "did you mean `gross`?"),
        ("signals: {class: {tolerence: 2}}", "signals.class.tolerence", "did you mean `tolerance`?"),
        ("signals: {disagreement: {at_most: 1}}", "signals.disagreement.at_most", "less than 100%"),
        ("signals: {disagreement: {at_most: few}}", "signals.disagreement.at_most", "such as 0.5%"),
        ("observe: 0.05%", "observe", "from 0.1% to 100%"),
        ("observe: 101%", "observe", "from 0.1% to 100%"),
        ("observe: 10", "observe", "such as 10%"),
        ("observe: 0.1", "observe", "such as 10%"),
        ("observe: none", "observe", "such as 10%"),
        ("observe: 0/s", "observe", "from 1/s to 300/s"),
        ("observe: 301/s", "observe", "from 1/s to 300/s"),
        ("observe: {share: 0.5}", "observe", "such as 10%"),
        ("compare: 150%", "compare", "from 1% to 100%"),
        ("compare: -5%", "compare", "from 1% to 100%"),
        ("compare: 0.5%", "compare", "from 1% to 100%"),
        ("compare: 0.5", "compare", "with its sign, such as 10%"),
        ("compare: 1", "compare", "with its sign, such as 10%"),
        ("compare: 10", "compare", "such as 10%"),
        ("compare: yes", "compare", "such as 10%"),
        ("{compare: 10%, steps: [shadow, 100], holdback: none}", "compare", "add a step below 100"),
        ("{compare: 10%, signals: {paired_label: null, disagreement: null}}", "compare", "judge `paired_label` or"),
        ("sticky: 'cookie monster'", "sticky", "header:x-user-id"),
        ("sticky: yes", "sticky", "header:x-user-id"),
        ("sticky: header:Authorization", "sticky", "its values are secrets"),
    ],
)
def test_an_impossible_plan_is_refused_with_place_and_reason(text: str, place: str, words: str) -> None:
    """The message says where, what was seen and what to write instead."""
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert f"`{place}`" in caught.value.saw
    assert words in str(caught.value)
    assert not re.search(r"Input should|not permitted|instance of|, not ", str(caught.value))


def test_all_mistakes_of_a_plan_are_reported_together() -> None:
    """Each has its place, so a file is corrected in one round."""
    with pytest.raises(SpecError) as caught:
        parse_spec("alpha: 2\nsoak: 1x\nsignals: {class: {gros: 3}}")
    assert set(caught.value.saw.split("; ")) == {
        "`alpha` is `2`",
        "`soak` is `1x`",
        "`signals.class.gros` does not exist",
    }
    assert all(f"`{place}`: " in caught.value.do for place in ("alpha", "soak", "signals.class.gros"))


def test_a_plan_with_very_many_mistakes_says_how_many() -> None:
    """The message said that `` was `null`, and had the number in place of the advice."""
    with pytest.raises(SpecError) as error:
        parse_spec("\n".join(f"x{number}: 1" for number in range(300)))
    assert (error.value.saw, error.value.do[:35]) == ("300 mistakes are in it", "correct those that you find, and tr")


def test_broken_yaml_is_reported_with_its_line() -> None:
    """Lines are counted as editors count them."""
    with pytest.raises(SpecError) as caught:
        parse_spec("alpha: 1%\nsoak: b: c")
    assert caught.value.saw.startswith("line 2, column 8: ")


@pytest.mark.parametrize("text", ["[1, 2]", "just words", "a: [", "a: b: c", "watch: 2026-13-45"])
def test_a_plan_that_is_not_a_mapping_is_refused(text: str) -> None:
    """A list, a sentence or broken YAML raises a SpecError and no other error."""
    with pytest.raises(SpecError):
        parse_spec(text)


def test_sticky_names_a_header() -> None:
    """`header:X-User-Id` keeps callers with the same value on one version."""
    assert parse_spec("sticky: header:X-User-Id").sticky == "x-user-id"
    assert parse_spec("sticky: none").sticky is None


def test_keys_cannot_identify_sticky_callers() -> None:
    """The gateway removes a key before it logs whose request failed. An older plan is still read from its ledger."""
    assert parse_spec("sticky: header:x-api-key").sticky == "x-kanaria-caller"
    kept = {"tag": "m:v2", "stable": "m:v1", "by": "ann", "spec": {"sticky": "authorization"}}
    event = read_event(json.dumps({"kind": "release_requested", "at_s": 1.0, **kept}), NUMBER)
    assert isinstance(event, ReleaseRequested)
    assert event.spec.sticky == "authorization"


@pytest.mark.parametrize("text", ["0", "0s", "none", "null"])
def test_a_warm_up_may_be_left_out(text: str) -> None:
    """Then the first copied request is evidence."""
    assert parse_spec(f"warmup: {text}").warmup_s == 0


@pytest.mark.parametrize(
    ("text", "share"), [("0", 0), ("0%", 0), ("none", 0), ("null", 0), ("2.5%", 0.025), ("10%", 0.1)]
)
def test_the_holdback_may_be_a_share_or_none(text: str, share: float) -> None:
    """The previous version has this share of the traffic until the watch ends."""
    assert parse_spec(f"holdback: {text}").holdback == share


@pytest.mark.parametrize(
    ("text", "share"), [("0", 0), ("none", 0), ("null", 0), ("1%", 0.01), ("10 %", 0.1), ("100%", 1.0)]
)
def test_a_share_of_the_requests_in_the_steps_may_be_compared(text: str, share: float) -> None:
    """The default is none. A plan of a version that gets all traffic at once compares none."""
    spec = parse_spec(f"compare: {text}")
    assert (spec.compare, RolloutSpec().compare, spec.without_steps().compare) == (share, 0, 0)
    assert RolloutSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("steps", "load"),
    [("[shadow, 1, 50, 100]", "at 1 % the canary answers up to 2 %"), ("auto", "at 1 % the canary answers up to 2 %")],
)
def test_validate_says_what_comparing_costs(steps: str, load: str) -> None:
    """It also says that a request with side effects has them twice."""
    words = " ".join(plan_in_words(parse_spec(f"{{steps: {steps}, compare: 10%}}")))
    assert "10 % of the requests to each are also sent to the other" in words
    assert load in words
    assert "changes something, both versions change it" in words
    assert "also sent" not in " ".join(plan_in_words(parse_spec("steps: auto")))


@pytest.mark.parametrize("steps", ["[5, 100]", "auto"])
def test_a_plan_without_a_shadow_has_no_warm_up(steps: str) -> None:
    """Users would pay for it."""
    assert parse_spec(f"steps: {steps}\nwarmup: 2m").warmup_s == 0


def test_a_short_soak_is_accepted_with_a_remark() -> None:
    """Hanging requests are not seen in such a short step; the shadow still waits for them."""
    short, default = parse_spec("soak: 5s\nwindow: 2s\nwarmup: none"), parse_spec("")
    assert short.remark
    assert short.remark.startswith("`soak` is 5 s, but a request that hangs fails only after 10 s")
    assert "16 s prevents that" in short.remark
    assert (short.soak_s(in_shadow=False), short.soak_s(in_shadow=True)) == (5, 16)
    assert parse_spec("soak: 5s\nwindow: 2s").soak_s(in_shadow=True) == 5, (
        "requests that hung in the warm-up are counted by then"
    )
    assert (default.remark, default.soak_s(in_shadow=True)) == (None, 60)


def test_a_signal_that_is_left_out_is_not_judged() -> None:
    """`class: null` removes the family from the rules and from the expected signals."""
    spec = parse_spec("signals: {class: null}")
    assert "class" not in spec.judge_config().rules
    assert "class" not in spec.signals.expected()


@pytest.mark.parametrize(
    ("now", "before"),
    [
        ("{class: {on_fail: rollback}}", "{predictions: {on_fail: rollback}}"),
        ("{class: null}", "{predictions: null}"),
        ("{wrong_label: {required: true}}", "{labels: {required: true}}"),
        ("{wrong_label: null}", "{labels: null}"),
    ],
)
def test_former_names_of_two_signals_are_accepted(now: str, before: str) -> None:
    """Old plans and ledgers have `predictions` and `labels`; new ones use the names of the evidence."""
    spec = parse_spec(f"signals: {now}")
    assert parse_spec(f"signals: {before}") == spec != parse_spec("")
    assert set(spec.model_dump()["signals"]) == {*RolloutSpec().judge_config().rules, "segment"}


def test_a_signal_that_is_not_named_keeps_its_defaults() -> None:
    """An option of one signal changes no other."""
    spec = parse_spec("signals: {latency: {tolerance: 2}}")
    assert spec.signals.without("latency") == RolloutSpec().signals.without("latency")


def test_a_tolerance_of_the_plan_reaches_the_judge() -> None:
    """The judge uses the plan's tolerance for the signal."""
    assert parse_spec("signals: {latency: {tolerance: 1.5}}").judge_config().rules["latency"].tolerance == 1.5


@pytest.mark.parametrize(("written", "seconds"), [("0s", 0), ("0", 0), ("10s", 10), ("600", 600), ("1h", 3600)])
def test_labels_may_count_at_an_age(written: str, seconds: float) -> None:
    """The age is one at which the service counts; the ledger stores it."""
    spec = parse_spec(f"signals: {{wrong_label: {{after: {written}}}}}")
    labels = RolloutSpec.model_validate_json(spec.model_dump_json()).signals.get(WrongLabel)
    assert labels is not None
    assert labels.after == seconds


def test_labels_that_are_not_required_may_take_longer_than_a_step() -> None:
    """Labels of one step count in the next."""
    assert parse_spec("signals: {wrong_label: {after: 1h}}").step_deadline == 600
    assert parse_spec("step_deadline: 11m\nsignals: {wrong_label: {after: 10m, required: true}}").signals.expected()


def test_the_share_that_may_differ_in_the_shadow_reaches_the_judge() -> None:
    """It is an absolute limit, independent of stable. The signal may be left out, or left to a person."""
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


def test_sticky_callers_are_judged_by_affected_users() -> None:
    """Affected users may fail the canary, with the settings of the errors; the budget still counts every error."""
    spec = parse_spec("sticky: header:x-user-id\nsignals: {errors: {tolerance: 2, on_fail: hold}}")
    rules, plain = spec.judge_config().rules, parse_spec("").judge_config().rules
    users, errors = rules["affected_users"], rules["errors"]
    assert (users.weight, users.tolerance, users.on_fail) == (plain["errors"].weight, 2, "hold")
    assert [(rule.weight > 0, rule.budgeted) for rule in (users, errors)] == [(True, False), (False, True)]
    assert "affected_users" in spec.expected()


def test_without_sticky_callers_there_is_no_signal_of_users() -> None:
    """The default has no family of users."""
    spec = parse_spec("")
    assert "affected_users" not in {*spec.judge_config().rules, *spec.expected()}


def test_alpha_is_the_error_probability_of_fail_and_pass() -> None:
    """The documentation promises the budget with confidence 1 - alpha."""
    config = parse_spec("alpha: 0.1%").judge_config()
    assert (config.alpha, config.alpha_pass) == (0.001, 0.001)
    judge = Judge(config)
    judge.observe(Window(5.0 * n, 5.0, "errors", Pair(0, 900), Pair(0, 100)) for n in range(1, 11))
    judgement = judge.judgement(next_weight=0.25)
    assert judgement.reason.startswith("with 99.9 % certainty ")
    assert judgement.signals["errors"].excess_upper == pytest.approx(
        -math.log(0.001 / 6) / (1000 * -math.expm1(-6)), rel=0.1
    )


def test_a_plan_without_steps_waits_for_no_labels_or_improvement() -> None:
    """A version that was good before is restored at once."""
    plan = parse_spec("require: better\nsignals: {wrong_label: {required: true, after: 1m}}").without_steps()
    assert (plan.steps, plan.require, plan.expected()) == ((100,), "safe", RolloutSpec().expected())
    assert RolloutSpec.model_validate(plan.model_dump()) == plan


def test_a_restore_waits_for_no_recorded_requests() -> None:
    """It uses the plan of the newest release without the parts that take time."""
    plan = parse_spec("golden: {requests: recorded, leave_out: [/pay]}")
    assert (plan.golden.requests, plan.golden.leave_out) == ("recorded", ("/pay",))
    assert plan.without_steps().golden == RolloutSpec().golden


@pytest.mark.parametrize("text", ["steps: " + "[" * 20_000, "[" * 20_000, "steps: " + "[" * 900 + "]" * 900])
def test_a_plan_that_is_nested_too_deeply_is_refused(text: str) -> None:
    """It crashed the command, and was an internal error of the judge server."""
    with pytest.raises(SpecError, match="nested too deeply"):
        parse_spec(text)


@pytest.mark.parametrize("depth", range(250, 500, 50))
def test_a_plan_nested_almost_too_deeply_is_refused_with_its_mistake(depth: int) -> None:
    """The part shown in the message may be nested too deeply to be written."""
    with pytest.raises(SpecError):
        parse_spec("steps: " + "[" * depth + "]" * depth)
