"""Better is not different: labels say which of two versions is right, and excuse what only says that they differ."""

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
    """One window of the canary's counts by signal, and of healthy requests; stable has as many."""
    errors = {"errors": Pair(0, 100), **canary}
    return [
        Window(WINDOW_S * number, WINDOW_S, signal, replaced(signal, counts), counts)
        for signal, counts in errors.items()
    ]


def replaced(signal: str, canary: Pair) -> Pair:
    """Stable's counts: of a pair of answers that labels tell apart the other one was wrong."""
    if signal == "paired_label":
        return Pair(canary.total - canary.bad, canary.total)
    return Pair(0, 100) if signal == "errors" else Pair(0, canary.total)


def judged(ticks: Iterator[list[Window]] | list[list[Window]], config: JudgeConfig = CONFIG) -> list[Judgement]:
    """The judgement after each tick, about a step to half of the traffic."""
    judge, found = Judge(config), []
    for windows in ticks:
        judge.observe(windows)
        found.append(judge.judgement(next_weight=0.5))
    return found


def test_a_better_model_that_differs_in_two_of_five_answers_passes() -> None:
    """Held first, because nothing but a difference is known; once labels prove it better, the difference is excused."""
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


def test_labels_that_prove_it_worse_fail_it_at_once() -> None:
    """In the shadow, before a user is harmed, and by more than a person's word."""
    last = judged([tick(n, disagreement=Pair(10, 200), paired_label=Pair(8, 9)) for n in range(1, 10)])[-1]
    assert (last.verdict, last.on_fail, last.failed_signal) == (Verdict.FAIL, "rollback", "paired_label")
    assert last.improvement is not None
    assert not last.improvement.is_proven


def test_a_better_model_that_fails_requests_is_failed() -> None:
    """Only what says that it differs is excused."""
    ticks = [tick(n, paired_label=Pair(1, 20)) for n in range(1, 10)]
    ticks += [tick(n, paired_label=Pair(1, 20), errors=Pair(10, 100)) for n in range(10, 20)]
    last = judged(ticks)[-1]
    assert last.improvement is not None
    assert last.improvement.is_proven
    assert (last.verdict, last.on_fail, last.failed_signal) == (Verdict.FAIL, "rollback", "errors")


def test_errors_are_not_hidden_by_a_gross_difference() -> None:
    """The difference FAILs first and may wait for labels; then half of the requests fail."""
    labels = Pair(10, 20)
    windows = [
        [Window(5.0 * n, 5.0, "wrong_label", labels, labels), *tick(n, disagreement=Pair(180, 200))]
        for n in range(1, 9)
    ]
    windows += [tick(n, disagreement=Pair(180, 200), errors=Pair(50, 100)) for n in range(9, 15)]
    found = judged(windows)
    assert (found[7].failed_signal, found[7].may_be_better) == ("disagreement", True)
    assert (found[-1].failed_signal, found[-1].may_be_better) == ("errors", False)


def test_nothing_waits_for_labels_where_none_could_prove_it_better() -> None:
    """The plan leaves the paired labels out, and takes the others as they come."""
    plan = RolloutSpec(signals=Signals.model_validate({"paired_label": None}))
    labels = Pair(10, 20)
    windows = [
        [Window(5.0 * n, 5.0, "wrong_label", labels, labels), *tick(n, disagreement=Pair(180, 200))]
        for n in range(1, 9)
    ]
    last = judged(windows, plan.judge_config())[-1]
    assert (last.verdict, last.on_fail, last.may_be_better) == (Verdict.FAIL, "rollback", False)


def test_a_gross_limit_within_what_is_harmless_is_none() -> None:
    """A plan that allows six times stable's odds does not roll back at four."""
    wide = {"class": {"tolerance": 6}, "low_confidence": {"tolerance": 6}, "disagreement": {"at_most": 0.6}}
    rules = Signals.model_validate(wide).rules()
    assert [rules[name].gross_tolerance for name in ("class", "low_confidence")] == [None, None]
    assert rules["disagreement"].gross_margin is None
    assert rules["class"].on_fail == "hold"


def test_a_proof_stays_when_fewer_labels_come_out_well() -> None:
    """It was reached once; that the canary has become worse since is for its own signal to prove."""
    ticks = [tick(n, paired_label=Pair(1, 20)) for n in range(1, 10)]
    ticks += [tick(n, disagreement=Pair(90, 200), paired_label=Pair(10, 20)) for n in range(10, 200)]
    last = judged(ticks)[-1]
    assert last.improvement is not None
    assert last.improvement.log_e < last.improvement.threshold
    assert last.verdict is Verdict.PASS


@pytest.mark.parametrize("labels", [1, 2, 7, 30])
def test_the_mean_of_what_a_window_proves_is_at_most_one(labels: int) -> None:
    """Every number of right answers of an equal canary, enumerated."""
    rights = np.arange(labels + 1)
    chances = binom.pmf(rights, labels, 0.5)
    for place in range(len(CONFIG.odds_ratios)):
        e_values = [
            math.exp(bounded(Pair(int(right), labels), odds_ratios=CONFIG.odds_ratios, limit=0.5)[place])
            for right in rights
        ]
        assert float(chances @ e_values) <= 1 + 1e-9


def test_an_equal_canary_is_hardly_ever_proven_better() -> None:
    """Of 400 releases of 500 labels that tell two equal versions apart, looked at after every window."""
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


def test_unpaired_labels_prove_it_better_where_they_count_at_one_age() -> None:
    """As they come they do not: a young version lacks the labels that take long, and those may be the wrong ones."""
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


def test_labels_may_still_prove_better_what_differs_grossly() -> None:
    """Nine of ten answers differ: without labels it is rolled back, and with them the judge says that it may wait."""
    unlabelled = [tick(n, disagreement=Pair(180, 200)) for n in range(1, 10)]
    last = judged(unlabelled)[-1]
    assert (last.verdict, last.on_fail, last.may_be_better) == (Verdict.FAIL, "rollback", False)
    labels = Pair(10, 20)
    labelled = [
        [Window(5.0 * n, 5.0, "wrong_label", labels, labels), *windows] for n, windows in enumerate(unlabelled, 1)
    ]
    assert judged(labelled)[-1].may_be_better
    strict = RolloutSpec(signals=Signals.model_validate({"disagreement": {"on_fail": "rollback"}})).judge_config()
    assert not judged(labelled, strict)[-1].may_be_better, "the plan says what to do about a difference"


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (Pair(22, 136), Verdict.INCONCLUSIVE),  # over the limit, and not yet proven to be
        (Pair(1, 20), Verdict.INCONCLUSIVE),  # too few to know
        (Pair(16, 800), Verdict.PASS),
        (Pair(0, 60), Verdict.PASS),
    ],
)
def test_the_shadow_passes_on_proof_that_few_enough_answers_differ(seen: Pair, verdict: Verdict) -> None:
    """Never because too little was seen; a tenth may differ."""
    ticks = [tick(n) for n in range(1, 60)]
    last = judged([*ticks, tick(60, disagreement=seen)])[-1]
    assert last.verdict is verdict
    assert last.signals["disagreement"].verdict is verdict


def test_how_many_more_answers_the_proof_takes_is_said() -> None:
    """And that no number is enough where as many as are allowed differ."""
    ticks = [tick(n) for n in range(1, 60)]
    few = judged([*ticks, tick(60, disagreement=Pair(1, 20))])[-1]
    more = few.signals["disagreement"].more_requests_needed
    assert more is not None
    assert f"about {round(more, -1):.0f} more to show that the share stays within that" in few.reason
    many = judged([*ticks, tick(60, disagreement=Pair(22, 136))])[-1]
    assert many.signals["disagreement"].more_requests_needed == math.inf
    assert "22 of 136 answers to copied requests differ from stable's (16.2 %), 10 % are allowed" in many.reason


@pytest.mark.parametrize("seen", [Pair(0, 1), Pair(1, 50), Pair(4, 100), Pair(7, 100)])
def test_the_number_of_answers_that_a_proof_takes_is_about_right(seen: Pair) -> None:
    """Found by trying ever more of them."""
    share = seen.bad / seen.total
    found = next(n for n in range(1, 20_000) if upper_limit_at_any_time(Pair(int(share * n), n), 0.01) <= 0.1)
    assert found / 1.5 <= seen.total + events_needed(seen, 0.1, 0.01) <= 1.5 * found
