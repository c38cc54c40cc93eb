"""The sentences of the judge for people."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.format import about, certainty, share, share_up
from rollout.judge import JudgeConfig, Judgement, Pair, SignalJudgement, Verdict, Window
from rollout.judge import words as w
from rollout.judge.judge import Judge
from rollout.judge.words import comparison, failed
from rollout.signals.catalogue import catalogue

Counts = tuple[int, int, int, int]


def reason(signal: str, counts: Counts, *, windows: int, next_weight: float | None) -> str:
    judge = Judge(JudgeConfig(rules=catalogue().rules))
    for i in range(1, windows + 1):
        judge.observe([Window(5.0 * i, 5.0, signal, Pair(*counts[:2]), Pair(*counts[2:]))])
    return judge.judgement(next_weight=next_weight).reason


@pytest.mark.parametrize(
    ("signal", "counts", "sentence"),
    [
        (
            "errors",
            (3, 900, 30, 100),
            "errors: 90 of 300 canary requests failed (30 %) against 9 of 2,700 on stable (0.33 %)",
        ),
        ("latency:100", (3, 900, 30, 100), "latency:100: 90 of 300 canary requests took longer than 100 ms (30 %)"),
        ("wrong_label", (3, 900, 30, 100), "wrong_label: 90 of 300 canary labelled predictions were wrong (30 %)"),
        ("class:7", (3, 900, 30, 100), 'class:7: 90 of 300 canary predictions were "7" (30 %)'),
        (
            "disagreement",
            (0, 200, 90, 200),
            "disagreement: 270 of 600 canary answers to copied requests differ from stable's (45 %), 10 % are allowed",
        ),
    ],
)
def test_fail_says_what_was_counted(signal: str, counts: Counts, sentence: str) -> None:
    """It gives counts and ratios of both versions in the words of the signal."""
    assert reason(signal, counts, windows=3, next_weight=0.5).startswith(sentence)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"segment:acme": (28, 30), "segment:other": (2, 270)}, "28 of its 30 bad answers were in segment `acme`"),
        ({"route:/rare": (30, 30), "route:/usual": (0, 270)}, "30 of its 30 bad answers were at `/rare`"),
        ({"segment:acme": (20, 30), "segment:other": (10, 270)}, ""),  # elsewhere too
        ({"segment:acme": (23, 100), "segment:other": (7, 200)}, "23 of its 30 bad answers were in segment `acme`"),
        ({"segment:acme": (23, 130), "segment:other": (7, 170)}, ""),  # less than twice its share of the requests
        ({"segment:other": (28, 270), "segment:acme": (2, 30)}, ""),
        ({"segment:acme": (3, 30), "segment:other": (0, 270)}, ""),  # too few
        ({}, ""),
    ],
)
def test_fail_says_where_most_bad_answers_were(parts: dict[str, tuple[int, int]], said: str) -> None:
    """It names a route or segment that does not have most of the requests; only bad answers have such a place."""
    for signal in ("errors", "rejected", "latency:100"):
        judge = Judge(JudgeConfig(rules=catalogue().rules))
        seen = [Window(5.0, 5.0, signal, Pair(3, 900), Pair(30, 300))]
        seen += [Window(5.0, 5.0, name, Pair(0, 900), Pair(*counts)) for name, counts in parts.items()]
        judge.observe(seen)
        for end_s in (10.0, 15.0, 20.0):
            judge.observe([Window(end_s, 5.0, signal, Pair(3, 900), Pair(60, 300))])
        found = judge.judgement(next_weight=0.5)
        assert found.failed_signal == signal
        assert (" bad answers were " in found.reason) is bool(said and signal != "latency:100")
        assert said in found.reason or signal == "latency:100"


def test_fail_says_how_rarely_a_harmless_canary_shows_this() -> None:
    """By Ville's inequality an e-value of 31,900 occurs in at most one of as many releases; rounded down here."""
    seen = comparison("errors", catalogue().words("errors"), Pair(3, 4560), Pair(12, 240))
    sentence = failed(seen, math.log(31_900))
    assert sentence.endswith("; a harmless canary shows this at most once in 31,000 releases")


def test_pass_gives_the_worst_case() -> None:
    """A bound of 0.598 % on the excess is 0.15 % of all requests at a weight of 25 %."""
    assert (
        reason("errors", (0, 900, 0, 100), windows=10, next_weight=0.25)
        == "with 99 % certainty fewer than 0.15 % of requests would be harmed at 25 %"
    )


def test_waiting_says_how_many_requests_and_how_long() -> None:
    """If errors were seen, the forecast is a range."""
    assert reason("errors", (10, 1000, 1, 100), windows=1, next_weight=0.25) == (
        "errors: about 650 more canary requests (could be 160 to 1,300) to show that 25 % is safe, "
        "about 32 s at 20 a second"
    )


def test_a_hopeless_step_says_which_setting_to_change() -> None:
    """More requests would not help."""
    assert reason("errors", (450, 900, 50, 100), windows=1, next_weight=1.0) == (
        "errors: with 50 % of all requests bad, an excess under 0.5 % can never be shown, so 100 % cannot pass; "
        "raise `risk_budget` or take a smaller step"
    )


def test_suspicion_gives_the_evidence_and_the_threshold() -> None:
    """Log e stands next to the value at which it would be proof."""
    assert reason("errors", (3, 900, 6, 20), windows=2, next_weight=0.25) == (
        "suspicious but not proven: errors: 12 of 40 canary requests failed (30 %) against 6 of 1,800 on stable "
        "(0.33 %); log e 3.9, at 4.6 it would be proof"
    )


def test_no_data_says_which_version_has_no_requests() -> None:
    """A reader knows which version to check."""
    assert reason("errors", (3, 900, 0, 0), windows=1, next_weight=0.25) == "no data: errors (no requests on canary)"


def test_a_family_without_any_signal_has_a_title() -> None:
    """There is no bound and no class to name yet."""
    assert [catalogue().words(family).title for family in ("latency", "class")] == ["latency", "predicted classes"]


SHARES = st.floats(1e-12, 1, exclude_max=True)
PAIRS = st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)).map(lambda both: Pair(min(both), max(both)))


def numbers(sentence: str) -> list[float]:
    """All percentages in the sentence."""
    return [float(number) for number in re.findall(r"([\d.]+(?:e-?\d+)?) %", sentence)]


def signals(stable: Pair, canary: Pair, more: float, log_e: float = 0.0) -> SignalJudgement:
    return SignalJudgement(
        verdict=Verdict.INCONCLUSIVE,
        log_e=log_e,
        threshold=4.6,
        stable=stable,
        canary=canary,
        more_requests_needed=more,
        canary_per_s=0.3,
    )


@given(ratio=SHARES)
def test_shares_are_not_rounded_to_0_or_100_percent(ratio: float) -> None:
    """This holds for any small share. A bound is rounded up, and a certainty is not rounded to 100 %."""
    assert share(ratio) not in ("0 %", "100 %")
    assert certainty(ratio) not in ("0 %", "100 %")
    assert numbers(share(ratio)) == [pytest.approx(100 * ratio, rel=0.06)]
    assert numbers(certainty(ratio)) == [pytest.approx(100 * (1 - ratio), rel=0.06, abs=0.06 * ratio)]
    assert numbers(share_up(ratio))[0] >= 100 * ratio * (1 - 1e-6)


@given(number=st.floats(1e-9, 1e9))
def test_an_estimate_is_never_rounded_to_zero(number: float) -> None:
    """ "About 0 more requests" would not explain the wait."""
    assert int(about(number).replace(",", "")) >= 1


@given(excess=st.floats(0, 1), weight=st.floats(1e-4, 1), alpha=st.floats(1e-9, 0.5))
def test_a_pass_never_promises_fewer_than_0_percent(excess: float, weight: float, alpha: float) -> None:
    """A bound of 0 means that the canary did better than stable, not that nothing fails."""
    sure, bound, _ = numbers(w.passed(excess, weight, alpha))
    assert 0 < sure < 100
    assert bound > 0


@given(stable=PAIRS, canary=PAIRS, limit=SHARES | st.none(), log_e=st.floats(2.4, 700), more=st.floats(1e-9, 1e12))
def test_no_sentence_says_0_or_100_percent_unless_it_is_exact(
    stable: Pair, canary: Pair, limit: float | None, log_e: float, more: float
) -> None:
    """A share in a sentence is 0 or 100 % only if none or all events are bad."""
    called = catalogue().words("errors")
    for sentence in (
        failed(comparison("errors", called, stable, canary, limit), log_e),
        w.suspicious(comparison("errors", called, stable, canary), signals(stable, canary, more, log_e)),
    ):
        told, counted = numbers(sentence), [canary, stable] if limit is None or "stable" in sentence else [canary]
        for number, pair in zip(told, [pair for pair in counted if pair.total], strict=False):
            assert (number == 0) == (pair.bad == 0)
            assert (number == 100) == (pair.bad == pair.total)
        assert limit is None or "stable" in sentence or told[-1] > 0
    for step in (1.0, 0.25):
        assert "about 0" not in w.waiting("errors", signals(stable, canary, more), step)
        assert "under 0 %" not in w.hopeless("errors", signals(stable, canary, math.inf), (limit or 0.1) / step, step)


def judged(stable: Pair, canary: Pair) -> Judgement:
    judge = Judge(JudgeConfig(rules=catalogue().rules))
    judge.observe([Window(5.0, 5.0, "errors", stable, canary)])
    return judge.judgement(next_weight=1.0)


def test_the_reason_for_a_much_better_canary_is_true() -> None:
    """Its bound is 0; the reason said "fewer than 0 % of requests would be harmed"."""
    judgement = judged(Pair(90_000, 100_000), Pair(0, 100_000))
    assert judgement.signals["errors"].excess_upper == 0
    assert judgement.reason == "with 99 % certainty fewer than 0.0001 % of requests would be harmed at 100 %"
