"""Labels can prove the canary better. Then signals that only show a difference from stable are excused."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from rollout.judge import JudgeConfig, Judgement, Pair, Verdict, Window
from rollout.judge.judge import Judge
from rollout.judge.kernels import bounded
from rollout.judge.limits import events_needed, upper_limit_at_any_time
from rollout.signals.options import WrongLabel
from rollout.signals.plan import Signals
from rollout.spec import RolloutSpec

CONFIG = RolloutSpec().judge_config()
WINDOW_S = 5.0
NOTHING = Pair(0, 0)


def tick(number: int, **canary: Pair) -> list[Window]:
    """One window of the canary's counts by signal and of healthy requests; stable has as many events."""
    errors = {"errors": Pair(0, 100), **canary}
    return [
        Window(WINDOW_S * number, WINDOW_S, signal, stable_counts(signal, counts), counts)
        for signal, counts in errors.items()
    ]


def stable_counts(signal: str, canary: Pair) -> Pair:
    """Stable's counts. In a pair of answers that labels distinguish, exactly one version is wrong."""
    if signal == "paired_label":
        return Pair(canary.total - canary.bad, canary.total)
    return Pair(0, 100) if signal == "errors" else Pair(0, canary.total)


def judged(ticks: Iterator[list[Window]] | list[list[Window]], config: JudgeConfig = CONFIG) -> list[Judgement]:
    """The judgement after each tick, asked about a step to half of the traffic."""
    judge, found = Judge(config), []
    for windows in ticks:
        judge.observe(windows)
        found.append(judge.judgement(next_weight=0.5))
    return found


def test_a_better_model_that_differs_in_two_of_five_answers_passes() -> None:
    """It is held first, as only a difference is known. Once labels prove it better, the difference is excused."""
    silent = [tick(n, disagreement=Pair(86, 200)) for n in range(1, 5)]
    labelled = [tick(n, disagreement=Pair(86, 200), paired_label=Pair(2, 43)) for n in range(5, 80)]
    before, after = judged([*silent, *labelled])[3], judged([*silent, *labelled])[-1]
    assert (before.verdict, before.on_fail, before.failed_signal) == (Verdict.FAIL, "hold", "disagreement")
    assert (after.verdict, after.failed_signal) == (Verdict.PASS, None)
    assert after.reason.startswith(
        "proven better by labels: it differs in 43 % of answers to copied requests, and where labels show that "
        "only one version is right, it is the canary in 3,075 of 3,225; "
    )
    assert after.signals["disagreement"].is_excused
    assert after.improvement is not None
    assert after.improvement.is_proven


def test_a_canary_that_labels_prove_worse_fails_at_once() -> None:
    """It fails in the shadow, before a user is harmed, and is rolled back without asking a person."""
    last = judged([tick(n, disagreement=Pair(10, 200), paired_label=Pair(8, 9)) for n in range(1, 10)])[-1]
    assert (last.verdict, last.on_fail, last.failed_signal) == (Verdict.FAIL, "rollback", "paired_label")
    assert last.improvement is not None
    assert not last.improvement.is_proven


def test_a_better_model_with_failing_requests_fails() -> None:
    """Proof by labels excuses only signals that show a difference."""
    ticks = [tick(n, paired_label=Pair(1, 20)) for n in range(1, 10)]
    ticks += [tick(n, paired_label=Pair(1, 20), errors=Pair(10, 100)) for n in range(10, 20)]
    last = judged(ticks)[-1]
    assert last.improvement is not None
    assert last.improvement.is_proven
    assert (last.verdict, last.on_fail, last.failed_signal) == (Verdict.FAIL, "rollback", "errors")


def test_errors_are_found_behind_a_gross_difference() -> None:
    """The difference FAILs first and may wait for labels; then half of the requests fail, and that does not wait."""
    labels = Pair(10, 20)
    windows = [
        [Window(5.0 * n, 5.0, "wrong_label", labels, labels), *tick(n, disagreement=Pair(180, 200))]
        for n in range(1, 9)
    ]
    windows += [tick(n, disagreement=Pair(180, 200), errors=Pair(50, 100)) for n in range(9, 15)]
    found = judged(windows)
    assert (found[7].failed_signal, found[7].may_be_better) == ("disagreement", True)
    assert (found[-1].failed_signal, found[-1].may_be_better) == ("errors", False)


def test_a_difference_does_not_wait_for_labels_that_could_not_prove_better() -> None:
    """The plan has no paired labels and counts the others as they arrive, so neither can prove improvement."""
    plan = RolloutSpec(signals=Signals.model_validate({"paired_label": None}))
    labels = Pair(10, 20)
    windows = [
        [Window(5.0 * n, 5.0, "wrong_label", labels, labels), *tick(n, disagreement=Pair(180, 200))]
        for n in range(1, 9)
    ]
    last = judged(windows, plan.judge_config())[-1]
    assert (last.verdict, last.on_fail, last.may_be_better) == (Verdict.FAIL, "rollback", False)


def test_a_gross_limit_inside_the_tolerance_is_dropped() -> None:
    """A plan that tolerates six times stable's odds does not roll back at four times."""
    wide = {"class": {"tolerance": 6}, "low_confidence": {"tolerance": 6}, "disagreement": {"at_most": 0.6}}
    rules = Signals.model_validate(wide).rules()
    assert [rules[name].gross_tolerance for name in ("class", "low_confidence")] == [None, None]
    assert rules["disagreement"].gross_margin is None
    assert rules["class"].on_fail == "hold"


def test_a_proof_of_improvement_is_kept_when_later_labels_are_worse() -> None:
    """It was reached once; its own signal must prove that the canary has become worse since."""
    ticks = [tick(n, paired_label=Pair(1, 20)) for n in range(1, 10)]
    ticks += [tick(n, disagreement=Pair(90, 200), paired_label=Pair(10, 20)) for n in range(10, 200)]
    last = judged(ticks)[-1]
    assert last.improvement is not None
    assert last.improvement.log_e < last.improvement.threshold
    assert last.verdict is Verdict.PASS


@pytest.mark.parametrize("labels", [1, 2, 7, 30])
def test_the_expected_e_value_of_a_window_of_labels_is_at_most_one(labels: int) -> None:
    """It is enumerated over all numbers of right answers, if the canary equals stable."""
    rights = np.arange(labels + 1)
    chances = binom.pmf(rights, labels, 0.5)
    for place in range(len(CONFIG.odds_ratios)):
        e_values = [
            math.exp(bounded(Pair(int(right), labels), odds_ratios=CONFIG.odds_ratios, limit=0.5)[place])
            for right in rights
        ]
        assert float(chances @ e_values) <= 1 + 1e-9


def test_an_equal_canary_is_proven_better_with_probability_at_most_alpha() -> None:
    """400 releases of two equal versions, 500 deciding labels each, tested after every window at alpha = 5 %."""
    rng = np.random.default_rng(7)
    config = replace(CONFIG, alpha=0.05, rules={"paired_label": CONFIG.rules["paired_label"]})
    proven = 0
    for _ in range(400):
        judge = Judge(config)
        for number, right in enumerate(rng.binomial(5, 0.5, size=100), 1):
            judge.observe([Window(5.0 * number, 5.0, "paired_label", NOTHING, Pair(int(5 - right), 5))])
        improvement = judge.judgement(next_weight=None).improvement
        proven += improvement is not None and improvement.is_proven
    assert binomtest(proven, 400, 0.05, alternative="greater").pvalue > 0.001


def test_unpaired_labels_prove_better_only_if_counted_at_one_age() -> None:
    """Counted by arrival they prove nothing: a young version lacks slow labels, which may be the wrong ones."""
    labels = [
        [Window(5.0 * n, 5.0, "wrong_label", Pair(42, 100), Pair(4, 100)), *tick(n, disagreement=Pair(86, 200))]
        for n in range(1, 20)
    ]
    for after_s, is_proven in ((0.0, False), (60.0, True)):
        signals = Signals({"wrong_label": WrongLabel(after=after_s)})
        last = judged(labels, RolloutSpec(signals=signals).judge_config())[-1]
        assert last.improvement is not None
        assert last.improvement.is_proven is is_proven
    assert last.verdict is Verdict.PASS
    assert "4 % of its labelled predictions were wrong, 42 % of stable's" in last.reason


def test_a_gross_difference_may_wait_for_labels() -> None:
    """Nine of ten answers differ: without labels it is rolled back; with labels the judge says that it may wait."""
    unlabelled = [tick(n, disagreement=Pair(180, 200)) for n in range(1, 10)]
    last = judged(unlabelled)[-1]
    assert (last.verdict, last.on_fail, last.may_be_better) == (Verdict.FAIL, "rollback", False)
    labels = Pair(10, 20)
    labelled = [
        [Window(5.0 * n, 5.0, "wrong_label", labels, labels), *windows] for n, windows in enumerate(unlabelled, 1)
    ]
    assert judged(labelled)[-1].may_be_better
    strict = RolloutSpec(signals=Signals.model_validate({"disagreement": {"on_fail": "rollback"}})).judge_config()
    assert not judged(labelled, strict)[-1].may_be_better, "the plan says to roll back on a difference"


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (Pair(22, 136), Verdict.INCONCLUSIVE),  # over the limit, but not proven to be
        (Pair(1, 20), Verdict.INCONCLUSIVE),  # too few answers to know
        (Pair(16, 800), Verdict.PASS),
        (Pair(0, 60), Verdict.PASS),
    ],
)
def test_the_shadow_passes_only_on_proof_that_few_answers_differ(seen: Pair, verdict: Verdict) -> None:
    """Too few answers are never a pass; at most a tenth may differ."""
    ticks = [tick(n) for n in range(1, 60)]
    last = judged([*ticks, tick(60, disagreement=seen)])[-1]
    assert last.verdict is verdict
    assert last.signals["disagreement"].verdict is verdict


def test_the_reason_says_how_many_more_answers_the_proof_needs() -> None:
    """Where the share seen is over the limit, it says that no number is enough."""
    ticks = [tick(n) for n in range(1, 60)]
    few = judged([*ticks, tick(60, disagreement=Pair(1, 20))])[-1]
    more = few.signals["disagreement"].more_requests_needed
    assert more is not None
    assert f"about {round(more, -1):.0f} more to show that the share stays within that" in few.reason
    many = judged([*ticks, tick(60, disagreement=Pair(22, 136))])[-1]
    assert many.signals["disagreement"].more_requests_needed == math.inf
    assert "22 of 136 answers to copied requests differ from stable's (16.2 %), 10 % are allowed" in many.reason


@pytest.mark.parametrize("seen", [Pair(0, 1), Pair(1, 50), Pair(4, 100), Pair(7, 100)])
def test_the_forecast_number_of_answers_is_about_right(seen: Pair) -> None:
    """It is compared with the smallest number whose limit suffices, found by search."""
    share = seen.bad / seen.total
    found = next(n for n in range(1, 20_000) if upper_limit_at_any_time(Pair(int(share * n), n), 0.01) <= 0.1)
    assert found / 1.5 <= seen.total + events_needed(seen, 0.1, 0.01) <= 1.5 * found
