"""Whole releases with short, heavy failures that hit both versions at once, or one of them.

The history of one version cannot distinguish the two.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from benchmarks.proofs.cells import often, times
from benchmarks.proofs.noisy_counts import ERRORS, RAMP
from benchmarks.proofs.sections import Section
from benchmarks.proofs.trial import Trial, failed_after_s, flat_noise
from rollout.judge import own_noise
from rollout.signals.plan import Signals
from rollout.simulate.noise import Noise
from rollout.simulate.parallel import Workers
from rollout.simulate.release import Run, Seed, simulate_release
from rollout.simulate.traffic import Behaviour, Scenario
from rollout.spec import RolloutSpec

_RPS, _RATIO = 100.0, 0.005
_PLAN = RolloutSpec(steps=(1, 5, 25, 50, 100), signals=Signals().only("errors"), watch=1, holdback=0)
_PATIENCE_S = 3600.0

SHARED = Noise(blip_s=3)
NOISES = (
    ("none", Noise()),
    ("blips of 3 s, in both at once", SHARED),
    ("blips of 3 s, each version its own", replace(SHARED, are_blips_shared=False)),
    ("blips of 30 s, each version its own", replace(SHARED, blip_s=30, are_blips_shared=False)),
)

_HEALTHY = """
## Blips: trouble of both versions, and of one

Every five minutes on average half of all requests fail for some seconds, because of something that both versions depend
on (*in both at once*) or because of the version itself (*its own*). At other times 0.5 % fail; there are 100 requests a
second. The plan is the default one without its shadow, for errors alone, and a release waits for at most an hour. *All
of it* and *own noise* are as above. The table shows how many of {releases} harmless canaries were promoted, and the
seconds until then, median and p90."""

_BAD = """
The same with a canary that fails more: seconds until it was rolled back, median and p90. In brackets: how many were
promoted."""

_FALSE = """
Harmless canaries stay at each weight for a quarter of an hour, in {releases} releases each: how often does the judge
fail them? Blips *in both at once* cancel, at any phi. *phi 1*: as if there were no noise."""


def sections(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Section]:
    """Promotion, detection and false alarms; one release for each seed."""
    few = seeds[:100]
    promoted = ("noise", "promoted, all of it", "after", "promoted, own noise", "after")
    yield Section(_HEALTHY.format(releases=len(few)), promoted, _healthy(workers, few))
    yield Section(_BAD, ("noise", "canary fails", "all of it", "own noise"), _bad(workers, few))
    failed = ("noise", "phi 1", "all of it", "own noise")
    yield Section(_FALSE.format(releases=len(seeds)), failed, _false(workers, seeds))


def _healthy(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Sequence[str]]:
    for name, noise in NOISES:
        cells = []
        for is_flat in (True, False):
            runs = list(workers.each(partial(release, noise, 0.0, is_flat), seeds))
            promoted = [run.outcome == "promoted" for run in runs]
            cells += [
                often(promoted),
                times([run.stopped_s if run.outcome == "promoted" else math.inf for run in runs]),
            ]
        yield name, *cells


def _bad(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Sequence[str]]:
    for name, noise in NOISES:
        for excess in (0.05, 0.3):
            cells = []
            for is_flat in (True, False):
                runs = list(workers.each(partial(release, noise, excess, is_flat), seeds))
                found = [run.stopped_s if run.outcome == "rolled_back" else math.inf for run in runs]
                cells.append(f"{times(found)} ({sum(run.outcome == 'promoted' for run in runs)})")
            yield name, f"{excess:.0%} more".replace("%", " %"), *cells


def _false(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Sequence[str]]:
    for name, noise in NOISES:
        harmless = Behaviour(_RATIO)
        plain = Trial(Scenario(_RPS, harmless, harmless, noise=noise), RAMP, ERRORS)
        measured = replace(plain, is_calibrated=True)
        ways = (plain, replace(measured, is_flat=True), measured)
        found = [workers.each(partial(failed_after_s, way), seeds) for way in ways]
        yield name, *(often([math.isfinite(at_s) for at_s in times_s]) for times_s in found)


def release(noise: Noise, excess: float, is_flat: bool, seed: Seed) -> Run:
    """One release in the default plan's steps, of a canary that fails `excess` more of its requests than stable."""
    scenario = Scenario(_RPS, Behaviour(_RATIO), Behaviour(_RATIO + excess), noise=noise)
    return simulate_release(
        _PLAN, scenario, seed, patience_s=_PATIENCE_S, noise_of=flat_noise if is_flat else own_noise
    )
