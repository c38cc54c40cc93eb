"""The simulated traffic has the properties of its scenario."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from rollout.judge import Pair, Window, dispersion
from rollout.simulate.noise import Noise
from rollout.simulate.traffic import Behaviour, Scenario, Traffic

STABLE = Behaviour(0.02, ((25, 0.3), (100, 0.1), (250, 0.01)), (0.6, 0.3, 0.1), low_confidence_ratio=0.05)
SCENARIO = Scenario(100, STABLE, replace(STABLE, error_ratio=0.1))


def drawn(scenario: Scenario, windows: int, *, weight: float = 0.25, seed: int = 1) -> list[tuple[Window, ...]]:
    traffic = Traffic(scenario, seed)
    return [traffic.window(weight) for _ in range(windows)]


def total(ticks: Sequence[tuple[Window, ...]], signal: str) -> tuple[Pair, Pair]:
    """All events of one signal, of stable and of the canary."""
    of_signal = [window for tick in ticks for window in tick if window.signal == signal]
    nothing = Pair(0, 0)
    return sum((one.stable for one in of_signal), nothing), sum((one.canary for one in of_signal), nothing)


def is_plausible(pair: Pair, ratio: float) -> bool:
    return bool(binomtest(pair.bad, pair.total, ratio).pvalue > 0.001)


def test_a_seed_determines_the_counts() -> None:
    """A study can be repeated to the last request."""
    assert drawn(SCENARIO, 100) == drawn(SCENARIO, 100) != drawn(SCENARIO, 100, seed=2)


def test_requests_are_split_by_the_weight() -> None:
    """At a weight of 25 % the canary gets a quarter of all requests."""
    stable, canary = total(drawn(SCENARIO, 200), "errors")
    assert is_plausible(Pair(canary.total, canary.total + stable.total), 0.25)


def test_rejected_requests_are_neither_failures_nor_predictions() -> None:
    """A tenth of the requests that did not fail is rejected; nothing is predicted for them."""
    stable = replace(STABLE, rejected_ratio=0.1)
    ticks = drawn(Scenario(100, stable, replace(stable, rejected_ratio=0.3)), 200)
    (rejected, stricter), (errors, _), (predicted, _) = (
        total(ticks, each) for each in ("rejected", "errors", "class:0")
    )
    assert is_plausible(Pair(rejected.bad, errors.total - errors.bad), 0.1)
    assert is_plausible(stricter, 0.3 * 0.98)
    assert rejected.total == errors.total == predicted.total + errors.bad + rejected.bad


def test_the_shadow_sends_every_request_to_both_versions() -> None:
    """Neither version loses a request to the other."""
    traffic = Traffic(SCENARIO, 1)
    stable, canary = total([traffic.window(0.0, mirror=True) for _ in range(200)], "errors")
    assert (stable.total, canary.total) == (pytest.approx(100_000, rel=0.02), pytest.approx(100_000, rel=0.02))


@pytest.mark.parametrize(
    ("signal", "ratio"),
    [("errors", 0.02), ("latency:25", 0.3), ("latency:250", 0.01), ("class:1", 0.3), ("low_confidence", 0.05)],
)
def test_each_signal_of_stable_has_the_ratio_of_its_behaviour(signal: str, ratio: float) -> None:
    """This is stable's behaviour in the scenario."""
    stable, _ = total(drawn(SCENARIO, 200), signal)
    assert is_plausible(stable, ratio)


def test_harm_begins_at_its_time() -> None:
    """Before, the canary fails like stable; from then on by its own ratio; no window has both."""
    ticks = drawn(replace(SCENARIO, harm_after_s=500.0), 200)
    (_, before), (_, after) = total(ticks[:100], "errors"), total(ticks[100:], "errors")
    assert is_plausible(before, 0.02)
    assert is_plausible(after, 0.1)


def test_counts_of_latency_bounds_are_consistent() -> None:
    """They come from one histogram, so an answer slower than one bound is slower than every shorter bound."""
    for tick in drawn(SCENARIO, 50):
        slow = [window.canary.bad for window in tick if window.signal.startswith("latency:")]
        assert slow == sorted(slow, reverse=True)


def test_every_answer_has_one_class() -> None:
    """Failed requests predict nothing; all others predict one class."""
    for tick in drawn(SCENARIO, 50):
        errors = next(window.stable for window in tick if window.signal == "errors")
        predicted = sum(window.stable.bad for window in tick if window.signal.startswith("class:"))
        assert predicted == errors.total - errors.bad


def test_the_given_share_of_answers_is_labelled() -> None:
    """A tenth of the answers is labelled, and a fifth of those labels is wrong."""
    labelled = replace(SCENARIO, stable=replace(STABLE, wrong_label_ratio=0.2), label_share=0.1)
    ticks = drawn(labelled, 200)
    (errors, _), (labels, _) = total(ticks, "errors"), total(ticks, "wrong_label")
    assert is_plausible(Pair(labels.total, errors.total - errors.bad), 0.1)
    assert is_plausible(labels, 0.2)


def test_labels_of_copies_show_which_version_was_right() -> None:
    """With independent mistakes of 30 % and 10 %, 34 % of the labelled copies decide, 7 in 34 of them for stable."""
    stable, canary = replace(STABLE, wrong_label_ratio=0.3), replace(STABLE, wrong_label_ratio=0.1)
    scenario = Scenario(100, stable, canary, label_share=0.5, are_labels_paired=True)
    traffic = Traffic(scenario, 1)
    ticks = [traffic.window(0.0, mirror=True) for _ in range(200)]
    (labels, _), (nothing, pairs) = total(ticks, "wrong_label"), total(ticks, "paired_label")
    assert nothing == Pair(0, 0)
    assert is_plausible(Pair(pairs.total, labels.total), 0.34)
    assert is_plausible(pairs, 7 / 34)
    assert "paired_label" not in {window.signal for window in traffic.window(0.25)}, (
        "only copies are answered by both versions"
    )
    compared = [traffic.window(0.25, compare=0.1) for _ in range(len(ticks))]
    _, of_copies = total(compared, "paired_label")
    assert of_copies.total == pytest.approx(0.1 * pairs.total, rel=0.2)


@pytest.mark.parametrize(
    "noise",
    [Noise(shared_icc=0.02), Noise(own_icc=0.02), Noise(own_icc=0.02, burst_s=60), Noise(retries=3)],
    ids=["shared bursts", "own bursts", "long bursts", "retries"],
)
def test_noise_shows_in_the_dispersion_and_not_in_the_ratio(noise: Noise) -> None:
    """Clustered failures are as many as independent ones, but their counts vary more."""
    history = Traffic(replace(SCENARIO, noise=noise), 1).history(7200)["errors"]
    failed = sum((window.stable for window in history), Pair(0, 0))
    assert dispersion(history) > 2
    assert failed.bad / failed.total == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize(
    ("noise", "is_shared"), [(Noise(shared_icc=0.05), True), (Noise(own_icc=0.05), False)], ids=["shared", "own"]
)
def test_shared_bursts_hit_both_versions_and_own_bursts_one(noise: Noise, is_shared: bool) -> None:
    """The error ratios of the two versions are correlated over the windows only if bursts are shared."""
    errors = [tick[0] for tick in drawn(replace(SCENARIO, noise=noise, canary=STABLE), 400, weight=0.5)]
    ratios = [[pair.bad / pair.total for pair in (window.stable, window.canary)] for window in errors]
    correlation = np.corrcoef(np.array(ratios).T)[0, 1]
    assert correlation > 0.8 if is_shared else abs(correlation) < 0.2


def test_drift_oscillates_around_the_ratio() -> None:
    """A drift of 5 takes 1 % to 0.2 % and 5 % and back within its period."""
    drifting = replace(SCENARIO, stable=replace(STABLE, error_ratio=0.01), rps=2000, noise=Noise(drift=5))
    errors = np.array([(tick[0].stable.bad, tick[0].stable.total) for tick in drawn(drifting, 720)])
    bad, requests = errors.reshape(60, 12, 2).sum(axis=1).T  # minutes
    ratios = bad / requests
    assert (ratios.min(), ratios.max()) == (pytest.approx(0.002, abs=0.0005), pytest.approx(0.05, abs=0.002))


def test_a_shorter_window_has_fewer_requests_and_ends_sooner() -> None:
    """The controller also reads at the end of a soak, whatever the window."""
    traffic = Traffic(Scenario(100, Behaviour(0.01), Behaviour(0.01)), 1)
    short, long = ([traffic.window(0.5, seconds=seconds)[0] for _ in range(200)] for seconds in (1.0, 5.0))
    totals = [np.mean([window.stable.total + window.canary.total for window in windows]) for windows in (short, long)]
    assert totals == pytest.approx([100, 500], rel=0.03)
    assert [short[1].end_s - short[0].end_s, long[1].end_s - long[0].end_s] == [1.0, 5.0]
