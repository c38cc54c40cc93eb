"""The sentences that a person reads at 3 a.m."""

import math

import pytest

from rollout.judge import Judge, JudgeConfig, Pair, Window
from rollout.judge.words import failed, signal_words

Counts = tuple[int, int, int, int]


def reason(signal: str, counts: Counts, *, windows: int, next_weight: float | None) -> str:
    judge = Judge(JudgeConfig())
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
def test_fail_tells_what_was_seen(signal: str, counts: Counts, sentence: str) -> None:
    """Both versions' counts and ratios, in the words of the signal."""
    assert reason(signal, counts, windows=3, next_weight=0.5).startswith(sentence)


def test_fail_tells_how_rare_it_is() -> None:
    """By Ville's inequality an e-value of 31,400 happens in one of as many releases; rounded down to stay true."""
    sentence = failed("errors", Pair(3, 4560), Pair(12, 240), math.log(31_900))
    assert sentence.endswith("; a harmless canary shows this at most once in 31,000 releases")


def test_pass_tells_the_worst_case() -> None:
    """The bound of 0.598 % on the excess means 0.15 % of all requests at a weight of 25 %."""
    assert (
        reason("errors", (0, 900, 0, 100), windows=10, next_weight=0.25)
        == "with 99 % certainty fewer than 0.15 % of requests would be harmed at 25 %"
    )


def test_waiting_tells_how_many_requests_and_how_long() -> None:
    """With errors about, the forecast is a range."""
    assert reason("errors", (10, 1000, 1, 100), windows=1, next_weight=0.25) == (
        "errors: about 650 more canary requests (could be 160 to 1,300) to show that 25 % is safe, "
        "about 32 s at the present 20 a second"
    )


def test_hopelessness_tells_which_setting_to_change() -> None:
    """More requests would not help."""
    assert reason("errors", (450, 900, 50, 100), windows=1, next_weight=1.0) == (
        "errors: with 50 % of all requests bad, an excess under 0.5 % can never be shown, so 100 % cannot pass; "
        "raise `risk_budget` or take a smaller step"
    )


def test_suspicion_tells_how_far_it_is_from_proof() -> None:
    """Amber."""
    assert reason("errors", (3, 900, 6, 20), windows=2, next_weight=0.25) == (
        "suspicious but not proven: errors: 12 of 40 canary requests failed (30 %) against 6 of 1,800 on stable "
        "(0.33 %); evidence 51, 100 would be proof"
    )


def test_no_data_tells_which_side_is_silent() -> None:
    """So that one knows where to look."""
    assert reason("errors", (3, 900, 0, 0), windows=1, next_weight=0.25) == "no data: errors (no requests on canary)"


def test_a_family_of_which_nothing_was_seen_is_named_as_a_whole() -> None:
    """No bound and no class to name yet."""
    assert [signal_words(family).title for family in ("latency", "class")] == ["latency", "predicted classes"]
