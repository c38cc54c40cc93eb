"""Pods are scraped at different times, so a burst that hits both versions may fall into different windows."""

import numpy as np
import pytest

from rollout.judge import Pair, Verdict
from rollout.judge.judge import Judge
from rollout.judge.own_noise import own_noise
from rollout.signals.folding import Fold, RawSeries
from rollout.signals.profile import Names, parse_profile
from rollout.spec import RolloutSpec

PROFILE = parse_profile(
    "{versions: {version: '{version}'}, signals: {errors: {of: all_total, bad: bad_total}}}", name="test"
)
PODS, INTERVAL_S, WINDOW_S, HISTORY_S, RELEASE_S = 10, 5, 15, 1800, 7200
RUNS = 30


def verdict(seed: int, *, every_s: float, ratio: float) -> Verdict:
    """The verdict on a release of two equal versions, with nine pods and one pod.

    Args:
        every_s: mean time between two bursts of 5 s that hit all pods equally.
        ratio: of the requests that fail in a burst.
    """
    rng = np.random.default_rng(seed)
    seconds = HISTORY_S + RELEASE_S
    failing = np.full(seconds, 0.001)
    for begin_s in rng.integers(0, seconds, size=rng.poisson(seconds / every_s)):
        failing[begin_s : begin_s + 5] = ratio
    series = []
    for pod in range(PODS):
        requests = rng.poisson(4, seconds)
        failed = rng.binomial(requests, failing)
        scraped = np.arange(rng.integers(0, INTERVAL_S), seconds, INTERVAL_S)
        labels = {"version": "canary" if pod == 0 else "stable", "pod": str(pod)}
        for name, events in (("all_total", requests), ("bad_total", failed)):
            values = np.cumsum(events)[scraped].astype(float)
            series.append(RawSeries({"__name__": name, **labels}, scraped.astype(float), values))
    fold = Fold(
        PROFILE,
        PROFILE.counters({}),
        Names("shop", "model", "canary", "stable"),
        origin_s=0.0,
        window_s=WINDOW_S,
        interval_s=INTERVAL_S,
        from_s=0.0,
    )
    windows = fold.extend(series, seconds)
    history = [window.of("stable") for window in windows if window.end_s <= HISTORY_S]
    known = sum((window.stable for window in history), Pair(0, 0))
    judge = Judge(RolloutSpec().judge_config(), {"errors": own_noise(history)}, {"errors": known})
    judge.observe(window for window in windows if window.end_s > HISTORY_S)
    return judge.judgement(next_weight=None).verdict


@pytest.mark.parametrize(("every_s", "ratio"), [(600.0, 0.5), (300.0, 0.9), (3600.0, 0.9)])
def test_bursts_that_hit_both_versions_fail_neither(every_s: float, ratio: float) -> None:
    """A window holds three scrapes. The remaining noise is in stable's history, or too short to be proof."""
    failed = sum(verdict(seed, every_s=every_s, ratio=ratio) is Verdict.FAIL for seed in range(RUNS))
    assert failed <= 1
