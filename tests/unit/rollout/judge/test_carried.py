"""The evidence with which a release of the same two versions starts."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from rollout.judge import JudgeConfig, Judgement, Pair, SignalRule, Verdict, Window
from rollout.judge.carried import carried, still_about_the_same
from rollout.judge.judge import Judge
from rollout.signals.catalogue import catalogue

CONFIG = JudgeConfig(rules=catalogue().rules)
NOTHING = Pair(0, 0)


def windows(stable: Pair, canary: Pair, count: int, signal: str = "errors") -> list[Window]:
    return [Window(5.0 * n, 5.0, signal, stable, canary) for n in range(1, count + 1)]


def random_windows(rng: np.random.Generator, ratio: float, worse: float, count: int) -> Iterator[Window]:
    """20 requests a second, a tenth of them to the canary."""
    for n in range(1, count + 1):
        totals = rng.poisson(90), rng.poisson(10)
        stable, canary = (
            Pair(int(rng.binomial(t, p)), int(t)) for t, p in zip(totals, (ratio, ratio * worse), strict=True)
        )
        yield Window(5.0 * n, 5.0, "errors", stable, canary)


def stopped(judge: Judge, seen: Iterator[Window], log_e: float) -> Judgement:
    """The judgement when the evidence reaches `log_e`, at FAIL, or at the end."""
    for window in seen:
        judge.observe([window])
        judgement = judge.judgement(next_weight=None)
        if judgement.log_e >= log_e or judgement.verdict is Verdict.FAIL:
            break
    return judgement


def suspicious() -> Judgement:
    """A judgement with an e-value between 10 and 100."""
    judge = Judge(CONFIG)
    judge.observe(windows(Pair(3, 900), Pair(6, 20), 2))
    judgement = judge.judgement(next_weight=None)
    assert math.log(10) < judgement.log_e < judgement.threshold
    return judgement


def test_the_next_release_starts_with_the_evidence_of_the_last() -> None:
    """A first window without information leaves the evidence unchanged."""
    before = suspicious()
    judge = Judge(CONFIG, carried=carried(before, {}))
    judge.observe(windows(NOTHING, Pair(0, 20), 1))
    judgement = judge.judgement(next_weight=None)
    assert judgement.log_e == pytest.approx(before.log_e)
    assert judgement.signals["errors"].log_e == pytest.approx(before.signals["errors"].log_e)


def test_a_release_without_counts_carries_the_evidence_unchanged() -> None:
    """This holds for a release that ended before anything was counted, and for a signal that was not seen."""
    once = carried(suspicious(), {})
    silent = Judge(CONFIG, carried=once).judgement(next_weight=None)
    assert carried(silent, once) == once
    other = Judge(CONFIG, carried=once)
    other.observe(windows(Pair(0, 900), Pair(0, 20), 1, "latency:100"))
    assert carried(other.judgement(next_weight=None), once) == once


def test_every_signal_carries_what_it_won() -> None:
    """The sum over signals is the total that was won; a signal with weight 0 carries nothing."""
    rules = {**catalogue().rules, "wrong_label": replace(catalogue().rules["wrong_label"], weight=0.0)}
    judge = Judge(replace(CONFIG, rules=rules))
    for window in windows(Pair(3, 900), Pair(3, 20), 2):
        judge.observe([replace(window, signal=signal) for signal in ("errors", "latency:100", "wrong_label")])
    judgement = judge.judgement(next_weight=None)
    won = carried(judgement, {})
    assert won.keys() == {"errors", "latency:100"}
    assert sum(map(math.exp, won.values())) == pytest.approx(math.expm1(judgement.log_e))


def test_a_difference_that_labels_excuse_is_not_carried() -> None:
    """Else the next release of a version that was proven better would start with evidence against it."""
    judge = Judge(CONFIG, is_better=True)
    for window in windows(Pair(3, 900), Pair(6, 20), 2):
        judge.observe([replace(window, signal=signal) for signal in ("errors", "class:7")])
    won = carried(judge.judgement(next_weight=None), {})
    assert won.keys() == {"errors"}
    excused = replace(judge.judgement(next_weight=None), signals={})
    assert carried(excused, {}) == {}


def test_a_fail_and_weak_evidence_are_not_carried() -> None:
    """A FAIL was a conclusion. An e-value under 2 is what most harmless canaries show."""
    judge = Judge(CONFIG)
    judge.observe(windows(Pair(3, 900), Pair(10, 20), 5))
    assert judge.judgement(next_weight=None).verdict is Verdict.FAIL
    assert carried(judge.judgement(next_weight=None), {}) == {}
    healthy = Judge(CONFIG, carried={"errors": math.log(11)})
    healthy.observe(windows(Pair(9, 900), Pair(0, 100), 200))
    assert carried(healthy.judgement(next_weight=None), {"errors": math.log(11)}) == {}


def test_evidence_under_another_rule_is_not_carried() -> None:
    """Another tolerance is another null hypothesis, to which the evidence does not apply."""
    won, rules = {"errors": 2.0, "latency:100": 1.0}, catalogue().rules
    wider = {**rules, "latency": replace(rules["latency"], tolerance=2.0)}
    assert still_about_the_same(won, rules, rules) == won
    assert still_about_the_same(won, wider, rules) == {"errors": 2.0}
    assert still_about_the_same(won, {"latency": rules["latency"]}, rules) == {"latency:100": 1.0}


def test_persistent_harm_is_found_sooner_with_carried_evidence() -> None:
    """At three times the errors, stopped at an e-value of 10 and released again, FAIL takes less than half the time."""
    took: dict[str, list[float]] = {"anew": [], "carried": []}
    for seed in range(60):
        before = stopped(Judge(CONFIG), random_windows(np.random.default_rng(seed), 0.01, 3, 1000), math.log(10))
        if before.verdict is Verdict.FAIL:
            continue
        for name, won in (("anew", {}), ("carried", carried(before, {}))):
            again = random_windows(np.random.default_rng(1000 + seed), 0.01, 3, 2000)
            failed = stopped(Judge(CONFIG, carried=won), again, math.inf)
            assert failed.verdict is Verdict.FAIL
            took[name].append(failed.signals["errors"].decided_at_s or math.inf)
    assert len(took["anew"]) > 50
    assert np.median(took["carried"]) < np.median(took["anew"]) / 2


@pytest.mark.parametrize("evidence", [12, 90])
def test_good_requests_cancel_carried_evidence(evidence: float) -> None:
    """Suspicion blocks PASS at first and decreases with every request that does not confirm it."""
    judge = Judge(CONFIG, carried={"errors": math.log(evidence - 1)})
    verdicts = []
    for window in windows(Pair(1, 900), Pair(0, 100), 100):
        judge.observe([window])
        verdicts.append(judge.judgement(next_weight=0.5).verdict)
    assert set(verdicts) == {Verdict.INCONCLUSIVE, Verdict.PASS}
    assert verdicts[0] is Verdict.INCONCLUSIVE
    assert verdicts[-1] is Verdict.PASS


def test_three_tries_of_a_harmless_version_fail_with_probability_at_most_3_alpha() -> None:
    """Each try is stopped when its evidence is high, the worst that a person can do; no caps and no tolerance."""
    alpha, tries, count = 0.05, 3, 400
    rules = {"errors": SignalRule(kernel="exact", weight=1.0, tolerance=1.0)}
    config = JudgeConfig(alpha=alpha, rules=rules, window_cap=1e9, min_bad=0)
    failed = 0
    for seed in range(count):
        rng, won = np.random.default_rng(seed), dict[str, float]()
        for _ in range(tries):
            seen = random_windows(rng, 0.1, 1, int(rng.integers(10, 40)))
            judgement = stopped(Judge(config, carried=won), seen, math.log(3))
            if judgement.verdict is Verdict.FAIL:
                failed += 1
                break
            won = carried(judgement, won)
    assert failed / count <= tries * alpha
