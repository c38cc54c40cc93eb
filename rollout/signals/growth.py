"""How much the counters of one pod grew from scrape to scrape, even if it was restarted in between."""

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Cut = tuple["Counter", Floats, Floats]  # the times and the values of its new samples
Side = Literal["stable", "canary"]


class Slot(NamedTuple):
    """One sum that a series adds to."""

    side: Side
    signal: str
    key: str  # of the signal
    part: str  # `of`, `bad`, or a bound of a histogram


@dataclass(slots=True)
class Counter:
    """The last sample of a series, and the sums that the series adds to."""

    process: tuple[str, ...]
    slots: tuple[Slot, ...]
    identity: frozenset[tuple[str, str]] = frozenset()  # its labels
    family: int = 0  # of a histogram: the same for all of its buckets
    bound: str = ""  # of a bucket of a histogram
    time_s: float = -math.inf
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Scrapes:
    """New samples of one pod's counters that were scraped together every time."""

    counters: tuple[Counter, ...]
    times: Floats  # Unix seconds, rising; shape (scrapes,)
    values: Floats  # shape (counters, scrapes)

    @property
    def last_s(self) -> float:
        """Unix time of the last sample before these; -inf: there was none."""
        return self.counters[0].time_s

    def changes(self) -> Floats:
        """Difference of each sample from the one before, or its value where there is none; shape of `values`."""
        last = np.array([counter.value for counter in self.counters])
        return np.diff(self.values, prepend=last[:, np.newaxis])


@dataclass(slots=True)
class Process:
    """One pod, whose counters restart together."""

    first_s: float  # Unix time of its first sample
    is_new: bool  # its first sample counts from 0
    resets: list[float] = field(default_factory=list)  # times of the first samples after each restart

    def growth(self, every: Sequence[Scrapes]) -> list[Floats]:
        """New events at each sample. Afterwards these samples are the counters' last ones."""
        changes = [scrapes.changes() for scrapes in every]
        self._find_restarts(every, changes)
        return [self._growth(scrapes, change) for scrapes, change in zip(every, changes, strict=True)]

    def _growth(self, scrapes: Scrapes, growth: Floats) -> Floats:
        is_reset = growth < 0
        if self.resets:
            ends = np.searchsorted(self.resets, scrapes.times, "right")
            begin = np.searchsorted(self.resets, scrapes.last_s, "right")
            is_reset |= np.diff(ends, prepend=begin) > 0
        growth = np.where(is_reset, scrapes.values, growth)
        if scrapes.last_s == -math.inf and not self.is_new and scrapes.times[0] <= self.first_s:
            growth[:, 0] = 0.0  # counted before the pod was first read
        for counter, value in zip(scrapes.counters, scrapes.values[:, -1].tolist(), strict=True):
            counter.time_s, counter.value = float(scrapes.times[-1]), value
        return growth

    def _find_restarts(self, every: Sequence[Scrapes], changes: Sequence[Floats]) -> None:
        """Note a restart where the sum of the pod's counters fell; one falling series alone is no restart."""
        if not any((change < 0).any() for change in changes):
            return
        summed: defaultdict[float, float] = defaultdict(float)
        for scrapes, change in zip(every, changes, strict=True):
            together = change.sum(axis=0)
            if scrapes.last_s == -math.inf:
                together[0] = 0.0  # a new series has not grown
            for time_s, fell in zip(scrapes.times.tolist(), together.tolist(), strict=True):
                summed[time_s] += fell
        for time_s, fell in sorted(summed.items()):
            if fell < 0:
                insort(self.resets, time_s)


def together(cuts: Iterable[Cut]) -> list[Scrapes]:
    """Group the counters of one pod by the scrapes that they have in common.

    Args:
        cuts: each with the times and the values of its new samples; values that are not finite are dropped.
    """
    groups: dict[tuple[float, bytes], list[Cut]] = {}
    for counter, times, values in cuts:
        groups.setdefault((counter.time_s, times.tobytes()), []).append((counter, times, values))
    found: list[Scrapes] = []
    for group in groups.values():
        stacked = np.array([values for _, _, values in group])
        if np.isfinite(stacked).all():
            found.append(Scrapes(tuple(counter for counter, _, _ in group), group[0][1], stacked))
        else:
            found += (_numbers_of(*each) for each in group)
    return [scrapes for scrapes in found if len(scrapes.times)]


def _numbers_of(counter: Counter, times: Floats, values: Floats) -> Scrapes:
    is_number = np.isfinite(values)
    return Scrapes((counter,), times[is_number], values[np.newaxis, is_number])
