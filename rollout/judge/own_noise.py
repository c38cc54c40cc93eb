"""The noise of a single version: how far two healthy versions differ by more than chance.

Noise that hits both versions alike cancels in the comparison. The rest comes in two kinds (the derivation is in
docs/decisions/0024-overdispersion.md). A cluster, such as the retries of one request, falls into one
version as a whole: clusters disperse the comparison by the same factor at every share of the traffic. Bursts of one
version grow with its traffic: with phi the dispersion of a version that has all the traffic, a comparison in which the
canary has the share w of the requests is dispersed by 1 + 2 (phi - 1) w (1 - w).

The history of one version does not show whether a burst would have hit another version as well. Short, rare and heavy
bursts (blips) are separated from the rest, so that each decision can treat them in the way that is safe for it.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import compress, groupby
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from rollout.judge.noise import BLOCKS_S, MIN_BAD, beyond_chance, running_sums
from rollout.judge.types import Numbers, Pair, Window, sum_of

if TYPE_CHECKING:  # commands that only read must start quickly, so they load no library
    import numpy as np
    from numpy.typing import NDArray

Some = TypeVar("Some", float, "NDArray[np.float64]")

_HEAVY = 2.0
_FEW = 0.1  # blips are in at most this share of the windows
_SDS = 4.0  # a window is loud when it is this many standard deviations above the usual count, ...
_CLUSTERS = 8.0  # ... plus this many clusters


@dataclass(frozen=True, slots=True)
class OwnNoise:
    """Dispersions: variances over those of independent requests. The default: requests are independent."""

    clusters: float = 1.0  # dispersion by events that come together, at any share of the traffic
    bursts: float = 1.0  # dispersion of a version with all the traffic, without blips; at least `clusters`
    blips: float = 1.0  # the same with blips, whether or not they are the version's own; at least `bursts`
    burst_s: float = 0.0  # how long a burst lasts, blips included, seconds
    ratio: float = 0.0  # share of bad events, blips included
    usual_ratio: float = 0.0  # share of bad events outside blips
    usual_scatter: float = 1.0  # dispersion of the counts of one window outside blips

    @classmethod
    def alike(cls, phi: float) -> "OwnNoise":
        """All noise is clusters: the dispersion is `phi` at every share."""
        return cls(clusters=phi, bursts=phi, blips=phi)

    def of_comparison(self, share: float) -> float:
        """Dispersion of canary's counts given both versions' counts together; blips may hit one version alone.

        Args:
            share: canary's share of the requests, 0 to 1.
        """
        return of_comparison(self.clusters, self.blips, share)

    def tempering(self, window: Window) -> tuple[float, float]:
        """Dispersion of a window's comparison, and how many such windows a burst lasts; both depend on totals alone."""
        both = window.stable.total + window.canary.total
        phi = self.of_comparison(window.canary.total / both) if both else 1.0
        return phi, max(1.0, self.burst_s / window.window_s) if window.window_s else 1.0

    def of_bound(self, share: float, *, is_loud: bool) -> float:
        """Dispersion that tempers the bound on the canary's excess in one window.

        Bursts count twice: in a sum over all windows no window is capped, so heavy bursts affect it more than their
        variance suggests. At half of the traffic this is the dispersion of one version with all the traffic.

        Args:
            share: canary's share of the requests, 0 to 1.
            is_loud: a blip of stable alone may be going on; otherwise there is no blip, or it is against the canary.
        """
        bursts = self.blips if is_loud else self.bursts
        return self.clusters + _HEAVY * 2 * (bursts - self.clusters) * share * (1 - share)

    def of_one(self, share: float, limit: float) -> float:
        """Dispersion of one version's own counts where a share `limit` of its requests fails, most of them steadily.

        Bursts add as many failures as in the history, however many of the other requests fail.

        Args:
            share: that version's share of the requests, 0 to 1.
            limit: share of bad events, above 0.
        """
        bursts = (self.blips - self.clusters) * share
        return self.clusters + bursts * min(1.0, self.ratio / limit)

    def is_loud(self, stable: Pair) -> bool:
        """Whether stable has so many bad events in this window that a blip may be going on."""
        return stable.bad > _loud_above(stable.total * self.usual_ratio, self.usual_scatter)


INDEPENDENT = OwnNoise()


def of_comparison(clusters: Some, blips: Some, share: Some) -> Some:
    """See `OwnNoise.of_comparison`; for one window or for arrays of windows."""
    return clusters + 2 * (blips - clusters) * share * (1 - share)


def own_noise(history: Sequence[Window]) -> OwnNoise:
    """The noise of one signal in stable's history. It may include noise that would have hit another version as well.

    Args:
        history: stable's windows of the signal, oldest first; 10 to 30 minutes are enough. `canary` holds the counts
            of another version that had a part of the traffic.
    """
    windows = [window for window in history if window.stable.total]
    if not windows:
        return INDEPENDENT
    lengths_s, share = [window.window_s for window in windows], _share_of_stable(windows)
    if numbers := [window.numbers.stable for window in windows if window.numbers]:
        return _of_numbers(numbers, lengths_s, share)
    return of_counts([window.stable for window in windows], lengths_s, share=share)


def of_counts(counts: Sequence[Pair], lengths_s: Sequence[float], *, share: float = 1.0) -> OwnNoise:
    """Like `own_noise`, from stable's counts.

    Args:
        counts: stable's counts in windows with any event, oldest first.
        lengths_s: lengths of these windows, seconds.
        share: stable's share of the requests, above 0 and up to 1.
    """
    if sum(pair.bad for pair in counts) < MIN_BAD:
        return INDEPENDENT
    window_s, lengths = _blocks(lengths_s)
    ratio, scatter = _usual(counts)
    is_loud = [pair.bad > _loud_above(ratio * pair.total, scatter) for pair in counts]
    usual = list(compress(counts, _outside_blips(is_loud)))
    total = sum_of(counts)
    mean = total.bad / total.total
    of_usual = _between_blocks(usual, lengths)
    clusters, bursts = of_usual[1], max(of_usual.values())
    with_blips = bursts if len(usual) == len(counts) else max(_between_blocks(counts, lengths).values())
    blips = max(clusters, with_blips)
    at_once = _scatter(counts, mean) - 1
    together = (blips - 1) / at_once if blips > 1 and at_once > 0 else 1.0
    lasts = min(max(1.0, together, _mean_run(is_loud)), max(lengths))  # windows
    # With a share of the traffic, bursts disperse a version's counts less, in proportion to the share.
    bursts, blips = (clusters + (phi - clusters) / share for phi in (bursts, max(bursts, blips)))
    return OwnNoise(
        clusters=clusters,
        bursts=bursts,
        blips=blips,
        burst_s=window_s * lasts,
        ratio=mean,
        usual_ratio=ratio,
        usual_scatter=scatter,
    )


def _of_numbers(numbers: Sequence[Numbers], lengths_s: Sequence[float], share: float) -> OwnNoise:
    """Like `own_noise`, from sums of numbers. No number is bad, so blips cannot be separated: all bursts count."""
    if sum(each.total for each in numbers) < MIN_BAD:
        return INDEPENDENT
    window_s, lengths = _blocks(lengths_s)
    of_lengths = _between_blocks(numbers, lengths)
    clusters = of_lengths[1]
    bursts, less = max((phi, -length) for length, phi in of_lengths.items())  # for equal phi the shortest length
    bursts = clusters + (max(clusters, bursts) - clusters) / share
    return OwnNoise(clusters=clusters, bursts=bursts, blips=bursts, burst_s=-window_s * less)


def _blocks(lengths_s: Sequence[float]) -> tuple[float, set[int]]:
    """The mean length of the windows, seconds, and the lengths of the blocks to compare, windows."""
    window_s = fmean(lengths_s)
    return window_s, {1, *(max(1, round(block_s / window_s)) for block_s in BLOCKS_S)}


def _between_blocks(counts: Sequence[Pair | Numbers], lengths: Collection[int]) -> dict[int, float]:
    """Phi by block length, windows."""
    sums = running_sums(counts)
    return {length: beyond_chance(sums, length) for length in lengths}


def _share_of_stable(windows: Sequence[Window]) -> float:
    stable = sum(window.stable.total for window in windows)
    return stable / (stable + sum(window.canary.total for window in windows))


def _usual(counts: Sequence[Pair]) -> tuple[float, float]:
    """The share of bad events and its scatter in nine tenths of the windows: those with the smallest shares."""
    least = sorted(counts, key=lambda pair: pair.bad / pair.total)[: math.ceil((1 - _FEW) * len(counts))]
    total = sum_of(least)
    ratio = total.bad / total.total
    return ratio, max(1.0, _scatter(least, ratio))


def _scatter(counts: Sequence[Pair], ratio: float) -> float:
    """Variance of the counts of single windows over that of independent requests."""
    expected = ratio * (1 - ratio) * sum(pair.total for pair in counts)
    return sum((pair.bad - ratio * pair.total) ** 2 for pair in counts) / expected if expected else 1.0


def _outside_blips(is_loud: Sequence[bool]) -> list[bool]:
    """For each window, whether it is no part of a blip: neither loud nor next to a loud one. All, if many are loud."""
    if sum(is_loud) > _FEW * len(is_loud):
        return [True] * len(is_loud)
    around = zip([False, *is_loud], is_loud, [*is_loud[1:], False], strict=False)
    return [not any(three) for three in around]


def _mean_run(is_loud: Sequence[bool]) -> float:
    """Mean over the loud windows of the length of their run; 0 where none is loud."""
    runs = [len(list(run)) for loud, run in groupby(is_loud) if loud]
    return sum(run * run for run in runs) / sum(runs) if runs else 0.0


def _loud_above(expected: float, scatter: float) -> float:
    return expected + _SDS * math.sqrt(2 * scatter * expected) + _CLUSTERS * scatter
