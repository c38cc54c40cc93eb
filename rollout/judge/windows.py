"""The windows of many signals as arrays: the same content as `Window` objects, without one object each."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rollout.judge.types import Pair, Window

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Windows:
    """Ticks, oldest first, each with at most one window of every signal. Iterating yields `Window` objects."""

    signals: tuple[str, ...]
    ends_s: Floats  # Unix seconds, rising; shape (ticks,)
    lengths_s: Floats  # shape (ticks, signals)
    counts: NDArray[np.int64]  # stable's bad and all events, canary's bad and all events; shape (ticks, signals, 4)
    is_there: NDArray[np.bool_]  # shape (ticks, signals); False: there is no such window, and its counts are 0

    @classmethod
    def of(cls, ticks: Sequence[Sequence[Window]], signals: Sequence[str]) -> Self:
        """The windows of some signals, as arrays. They must have no sums of numbers; callers are dropped.

        Args:
            ticks: each with at most one window of a signal.
            signals: names, in the order of the columns.
        """
        column = {signal: place for place, signal in enumerate(signals)}
        shape = len(ticks), len(column)
        counts, lengths_s = np.zeros((*shape, 4), dtype=np.int64), np.zeros(shape)
        is_there = np.zeros(shape, dtype=bool)
        windows = [(place, column[window.signal], window) for place, tick in enumerate(ticks) for window in tick]
        at = [place for place, _, _ in windows], [place for _, place, _ in windows]
        numbers = [(*window.stable, *window.canary) for _, _, window in windows]
        counts[at] = np.reshape(np.array(numbers, dtype=np.int64), (-1, 4))  # the reshape is for an empty list
        lengths_s[at] = [window.window_s for _, _, window in windows]
        is_there[at] = True
        return cls(tuple(signals), np.array([tick[0].end_s for tick in ticks]), lengths_s, counts, is_there)

    def __len__(self) -> int:
        return len(self.ends_s)

    def of_stable(self, place: int) -> tuple[list[Pair], list[float]]:
        """Stable's counts of the signal in column `place`, in windows with events, and their lengths, seconds."""
        counts = self.counts[:, place, :2]
        has_events = counts[:, 1] > 0
        pairs = [Pair(bad, total) for bad, total in counts[has_events].tolist()]
        return pairs, self.lengths_s[has_events, place].tolist()

    def __iter__(self) -> Iterator[Window]:
        for place in range(len(self)):
            yield from self.tick(place)

    def tick(self, place: int) -> list[Window]:
        """The windows of tick number `place`, from 0, in the order of the columns."""
        end_s = float(self.ends_s[place])
        rows = zip(
            self.signals,
            self.is_there[place].tolist(),
            self.lengths_s[place].tolist(),
            self.counts[place].tolist(),
            strict=True,
        )
        return [
            Window(end_s, length_s, signal, Pair(bad, total), Pair(own_bad, own_total))
            for signal, is_there, length_s, (bad, total, own_bad, own_total) in rows
            if is_there
        ]

    def part(self, begin: int, end: int) -> "Windows":
        """The ticks from `begin` up to but not including `end`."""
        at = slice(begin, end)
        return Windows(self.signals, self.ends_s[at], self.lengths_s[at], self.counts[at], self.is_there[at])

    @classmethod
    def joined(cls, parts: Sequence["Windows"]) -> "Windows":
        """The windows of consecutive spans, with a column for every signal of any of them, sorted by name."""
        signals = sorted({signal for part in parts for signal in part.signals})
        every = [part.of_signals(signals) for part in parts]
        return cls(
            tuple(signals),
            np.concatenate([part.ends_s for part in every]),
            np.concatenate([part.lengths_s for part in every]),
            np.concatenate([part.counts for part in every]),
            np.concatenate([part.is_there for part in every]),
        )

    def of_signals(self, names: Iterable[str]) -> "Windows":
        """The windows of some signals, in this order. A signal without windows gets an empty column."""
        known = {name: place for place, name in enumerate(self.signals)}
        signals = tuple(names)
        to = [place for place, name in enumerate(signals) if name in known]
        at = [known[signals[place]] for place in to]
        shape = len(self), len(signals)
        lengths_s, is_there = np.zeros(shape), np.zeros(shape, dtype=bool)
        counts = np.zeros((*shape, 4), dtype=np.int64)
        lengths_s[:, to], is_there[:, to] = self.lengths_s[:, at], self.is_there[:, at]
        counts[:, to] = self.counts[:, at]
        return Windows(signals, self.ends_s, lengths_s, counts, is_there)

    def renamed(self, names: Iterable[str]) -> "Windows":
        """The same windows under other names, in the same order."""
        return replace(self, signals=tuple(names))

    def without_empty_ticks(self) -> "Windows":
        """The ticks that have a window."""
        at = self.is_there.any(axis=1)
        if at.all():
            return self
        return Windows(self.signals, self.ends_s[at], self.lengths_s[at], self.counts[at], self.is_there[at])

    @property
    def are_sound(self) -> bool:
        """Whether the ticks' ends rise, and every count of bad events is between 0 and its total."""
        bad, total = self.counts[:, :, ::2], self.counts[:, :, 1::2]
        return bool((np.diff(self.ends_s) > 0).all() and ((bad >= 0) & (bad <= total)).all())
