"""Slow answers that come in bursts: what it costs when the noise of some latency bounds is not measured.

Before a release, Kanaria measures the noise of every bound that the gateway counts, whichever bounds the next plan
uses. This page shows why.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from benchmarks.proofs.cells import often, times
from benchmarks.proofs.noisy_counts import RAMP
from benchmarks.proofs.sections import Section
from benchmarks.proofs.trial import Trial, failed_after_s
from rollout.signals.catalogue import catalogue
from rollout.signals.options import Latency
from rollout.simulate.noise import Noise
from rollout.simulate.parallel import Workers
from rollout.simulate.release import Seed
from rollout.simulate.traffic import Behaviour, Scenario
from rollout.spec import RolloutSpec

_BOUNDS_MS = tuple(bound for bound in Latency().slower_than_ms if bound > 250)
_SLOW = frozenset(f"latency:{bound}" for bound in _BOUNDS_MS)
_LATENCY = replace(RolloutSpec().judge_config(), rules={"latency": catalogue().rules["latency"]})

_TEXT = """
## Slow answers in bursts

2 % of the answers take over 500 ms and half of these over a second, in slow periods of 30 s that each version has at
its own times; 20 requests a second, the ramp. *Not measured*: the noise of these two bounds is unknown, and their
requests are treated as independent (phi 1). *Measured*: on half an hour of stable, as for every bound. The table shows
how often the judge failed a harmless canary in {releases} releases, and the seconds until 5 % more slow answers were
found at 10 %, median and p90."""


def sections(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Section]:
    """False alarms and detection with and without the noise of the slow bounds; one release for each seed."""
    yield Section(_TEXT.format(releases=len(seeds)), ("noise", "not measured", "measured"), _rows(workers, seeds))


def _rows(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Sequence[str]]:
    for icc in (0.0, 0.02, 0.05, 0.1):
        harmless = [_times(workers, _trial(icc, unmeasured=bounds), seeds) for bounds in (_SLOW, frozenset())]
        failed = [[math.isfinite(at_s) for at_s in times_s] for times_s in harmless]
        yield f"ICC {icc:g}: harmless, failed", *(often(one) for one in failed)
        slower = [_times(workers, _trial(icc, unmeasured=bounds, more=0.05), seeds) for bounds in (_SLOW, frozenset())]
        yield f"ICC {icc:g}: found after", *(times(one) for one in slower)


def _trial(icc: float, *, unmeasured: frozenset[str], more: float = 0.0) -> Trial:
    """On the canary a share of `more` is slow as well."""
    stable = tuple((bound, 0.02 * 500 / bound) for bound in _BOUNDS_MS)
    canary = tuple((bound, ratio + more * (1 - ratio)) for bound, ratio in stable)
    noise = Noise(own_icc=icc, burst_s=30)
    return Trial(
        Scenario(20, Behaviour(slow_ratios=stable), Behaviour(slow_ratios=canary), noise=noise),
        ((0.1, 3600.0),) if more else RAMP,
        _LATENCY,
        is_calibrated=True,
        unmeasured=unmeasured,
    )


def _times(workers: Workers, trial: Trial, seeds: Sequence[Seed]) -> list[float]:
    return list(workers.each(partial(failed_after_s, trial), seeds))
