"""A signal of numbers in the judge: harm, budget, improvement, and its sentences."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rollout.judge import JudgeConfig, OwnNoise, Pair, SignalRule, Verdict, Window, own_noise
from rollout.judge.jsonl import judgement_object
from rollout.judge.judge import Judge
from rollout.judge.types import BothNumbers, NumberRule, Numbers

RULE = SignalRule("means", 0.15, numbers=NumberRule((0.0, 10.0), tolerance=0.1, unit="EUR"))


def sums(numbers: Any) -> Numbers:
    return Numbers(len(numbers), float(np.sum(numbers)), float(np.sum(np.square(numbers))))


def window(number: int, stable: Any, canary: Any, signal: str = "cost") -> Window:
    both = BothNumbers(sums(stable), sums(canary))
    return Window(5.0 * number, 5.0, signal, Pair(0, len(stable)), Pair(0, len(canary)), both)


def costs(windows: int, excess: float = 0.0, seed: int = 1) -> list[Window]:
    rng = np.random.default_rng(seed)

    def drawn(more: float, n: int) -> Any:
        return np.clip(rng.gamma(2, 1, n) + more, 0, 10)

    return [window(i, drawn(0, 450), drawn(excess, 50)) for i in range(1, windows + 1)]


def judged(rule: SignalRule, windows: list[Window], *, noise: OwnNoise | None = None) -> Judge:
    judge = Judge(JudgeConfig(rules={"cost": rule}), {"cost": noise} if noise else {})
    judge.observe(windows)
    return judge


def test_a_costlier_canary_fails_and_the_reason_says_by_how_much() -> None:
    """It costs 0.5 EUR more where 0.1 EUR is tolerated."""
    judgement = judged(RULE, costs(60, 0.5)).judgement(next_weight=None)
    assert judgement.verdict is Verdict.FAIL
    assert judgement.failed_signal == "cost"
    assert judgement.reason.startswith("cost: ")
    assert "EUR more (at least " in judgement.reason or "EUR more (between " in judgement.reason
    assert "0.1 EUR more is allowed; a harmless canary shows this" in judgement.reason


@pytest.mark.parametrize("excess", [0.0, 0.1, -0.5])
def test_a_canary_within_the_tolerance_does_not_fail(excess: float) -> None:
    """It costs the same, 0.1 EUR more, or less."""
    assert judged(RULE, costs(60, excess)).judgement(next_weight=None).verdict is Verdict.PASS


def test_lower_is_worse_mirrors_every_number() -> None:
    """Mirrored numbers give the mirrored difference and the same evidence."""
    mirrored = [
        replace(each, numbers=BothNumbers(*(one.negated() for one in each.numbers or ()))) for each in costs(40, 0.5)
    ]
    numbers = NumberRule((-10.0, 0.0), "lower", tolerance=0.1)
    higher = judged(RULE, costs(40, 0.5)).judgement(next_weight=None).signals["cost"]
    lower = judged(replace(RULE, numbers=numbers), mirrored).judgement(next_weight=None).signals["cost"]
    assert lower.log_e == higher.log_e
    assert lower.difference is not None
    assert higher.difference is not None
    assert (lower.difference.least, lower.difference.most) == (-higher.difference.most, -higher.difference.least)
    assert lower.difference.worst == higher.difference.worst


def test_a_step_waits_until_its_budget_is_proven() -> None:
    """At most 0.05 EUR more on average over all requests is proven soon at 10 % of traffic, and later at 100 %."""
    rule = replace(RULE, budgeted=True, numbers=NumberRule((0.0, 10.0), budget=0.05))
    judge = judged(rule, costs(30))
    small, whole = judge.judgement(next_weight=0.1), judge.judgement(next_weight=1.0)
    assert (small.verdict, whole.verdict) == (Verdict.PASS, Verdict.INCONCLUSIVE)
    assert small.reason.startswith("with 99 % certainty, averaged over all requests at 10 %: cost at most 0.0")
    assert "more canary requests" in whole.reason
    assert judged(rule, []).judgement(next_weight=0.1).verdict is Verdict.NO_DATA


def test_an_improvement_has_an_upper_limit_below_zero() -> None:
    """At 0.5 EUR less, the upper confidence limit of the difference is below 0."""
    difference = judged(RULE, costs(60, -0.5)).judgement(next_weight=None).signals["cost"].difference
    assert difference is not None
    assert difference.least < -0.4 < difference.most < 0


def test_a_signal_of_weight_zero_is_reported_but_neither_fails_nor_holds() -> None:
    """The release passes, and the time at which the signal was significant is reported."""
    judgement = judged(replace(RULE, weight=0.0), costs(60, 0.5)).judgement(next_weight=None)
    assert judgement.verdict is Verdict.PASS
    assert judgement.log_e == 0
    assert judgement.signals["cost"].decided_at_s is not None
    assert judgement.signals["cost"].verdict is Verdict.INCONCLUSIVE


def test_a_replay_gives_identical_evidence_to_the_last_bit() -> None:
    """The sums alone, through JSON as in the ledger, give the same judgement window by window as at once."""
    windows = costs(50, 0.2)
    copies = [
        replace(each, numbers=BothNumbers(*(Numbers(*json.loads(json.dumps(one))) for one in each.numbers or ())))
        for each in windows
    ]
    one_by_one = Judge(JudgeConfig(rules={"cost": RULE}))
    for each in copies:
        one_by_one.observe([each])
    assert one_by_one.judgement(next_weight=0.5) == judged(RULE, windows).judgement(next_weight=0.5)


def test_noise_in_stables_history_reduces_the_evidence() -> None:
    """Stable's mean varies between windows in its history, so the same variation of the canary is not harm."""
    rng = np.random.default_rng(3)

    def wandering(windows: int, n_c: int) -> list[Window]:
        # Each version has its own level, which lasts half a minute.
        levels = np.repeat(rng.normal(0.6, 0.3, (2, windows // 6)), 6, axis=1)
        return [
            window(i + 1, *(np.clip(rng.gamma(2, 1, n) + levels[side, i], 0, 10) for side, n in enumerate((450, n_c))))
            for i in range(windows)
        ]

    noise = own_noise(wandering(360, 0))
    assert noise.blips > 5
    log_e = [
        judged(RULE, wandering(120, 50), noise=known).judgement(next_weight=None).log_e
        for known in (None, noise)
        for _ in range(5)
    ]
    assert max(log_e[5:]) < 2 < max(log_e[:5])
    assert own_noise(costs(360)).blips < 1.5


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Window(5.0, 5.0, "cost", Pair(0, 2), Pair(0, 2)), "this window has no sums"),
        (window(1, [1, 11], [1, 1]), "a sum of squares"),
        (window(1, [1, 30], [1, 1]), "stable has a sum of 31"),
        (window(1, [1, 1], [math.nan]), "canary has sums that are not finite"),
        (replace(window(1, [1, 1], [1]), canary=Pair(0, 2)), "sums of 1 numbers, but a count of 2"),
        (replace(window(1, [1, 1], [1]), canary=Pair(1, 1)), "sums of 1 numbers"),
    ],
)
def test_impossible_windows_are_refused(bad: Window, reason: str) -> None:
    """The error names the signal, the side and the reason."""
    with pytest.raises(ValueError, match=reason):
        judged(RULE, [bad])


def test_numbers_for_a_rule_about_bad_events_are_refused() -> None:
    """Counts for a rule about numbers are refused above."""
    judge = Judge(JudgeConfig(rules={"errors": SignalRule("rare", 0.4)}))
    with pytest.raises(ValueError, match="its rule is about bad events"):
        judge.observe([window(1, [1], [1], "errors")])


def test_with_one_side_alone_the_verdict_is_no_data() -> None:
    """There is nothing to compare and nothing proven, but no error."""
    judgement = judged(RULE, [window(i, [1.0, 2.0], []) for i in range(1, 20)]).judgement(next_weight=0.5)
    assert judgement.verdict is Verdict.NO_DATA
    difference = judgement.signals["cost"].difference
    assert difference is not None
    assert (difference.canary, difference.least, difference.most) == (None, -10.0, 10.0)


def test_numbers_without_variance_are_judged() -> None:
    """All numbers are equal, then the canary's jump."""
    same = [window(i, [2.0] * 90, [2.0] * 10) for i in range(1, 20)]
    assert judged(RULE, same).judgement(next_weight=None).verdict is Verdict.PASS
    jump = [window(i, [2.0] * 90, [3.0] * 10) for i in range(20, 40)]
    assert judged(RULE, [*same, *jump]).judgement(next_weight=None).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        (NumberRule((1.0, 1.0)), "between of cost"),
        (NumberRule((0.0, math.inf)), "between of cost"),
        (NumberRule((0.0, 1e300)), "between of cost"),
        (NumberRule((math.nan, 1.0)), "between of cost"),
        (NumberRule((0.0, 1.0), tolerance=1.0), "tolerance of cost"),
        (NumberRule((0.0, 1.0), tolerance=-0.1), "tolerance of cost"),
        (NumberRule((0.0, 1.0), budget=0.1), "budgeted of cost"),
        (NumberRule((0.0, 1.0), budget=-0.1), "budget of cost"),
        (None, "numbers of cost"),
    ],
)
def test_rules_that_could_prove_nothing_are_refused(numbers: NumberRule | None, reason: str) -> None:
    """The error gives name, value and range."""
    with pytest.raises(ValueError, match=reason):
        Judge(JudgeConfig(rules={"cost": SignalRule("means", 0.15, numbers=numbers)}))


def test_the_printed_object_has_means_and_limits() -> None:
    """They replace the shares of bad events."""
    answer = judgement_object(judged(RULE, costs(30)).judgement(next_weight=None))
    signals = answer["signals"]
    assert isinstance(signals, dict)
    assert signals["cost"]["stable_mean"] == pytest.approx(2.0, abs=0.05)
    assert signals["cost"]["difference_least"] < 0 < signals["cost"]["difference_most"]
    assert signals["cost"]["stable_ratio"] is None


def test_numbers_without_bursts_in_the_history_get_no_default_burst_length() -> None:
    """A few quiet minutes before a release show no burst. A default burst of a minute would spread the cap of one
    window over sixty.
    """
    rng = np.random.default_rng(1)
    quiet = [window(number, [5.0] * 40 + [float(rng.choice([4.0, 6.0]))], []) for number in range(1, 31)]
    assert own_noise(quiet) == OwnNoise(burst_s=5.0)  # one window
