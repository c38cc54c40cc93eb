"""Turns raw samples of many pods into windows of new events.

Counters are differenced series by series, never with `rate()`: each event is in exactly one window, that of the first
sample that contains it. The same samples give the same windows, whether they are folded at once or in parts.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from rollout.errors import RolloutError
from rollout.judge.windows import Windows
from rollout.signals.growth import Counter, Cut, Floats, Process, Scrapes, Side, Slot, together
from rollout.signals.profile import (
    EXPORTED_PREFIX,
    REPLICA_LABELS,
    SCRAPER_LABELS,
    TARGET_LABELS,
    Names,
    Profile,
    SeriesOf,
)

SIDES: tuple[Side, Side] = ("stable", "canary")

STALE_INTERVALS = 3  # scrapes that a pod may miss before its newest sample is stale
START_TIME = "process_start_time_seconds"  # as Prometheus's client libraries name it
_NAME = "__name__"
_ALL = "all"  # key for all events of a histogram; the slot's part lists the histogram's bounds
_INFINITE = f"{math.inf}"  # the bound that every histogram has
_GAPS = 20  # number of gaps between samples from which the scrape interval is estimated
_FEWEST_GAPS = 2

# One signal in each window: whether it was known by the window's end; stable's bad and all events, then canary's.
Column = tuple[NDArray[np.bool_], list[Floats]]


class Uncountable(RolloutError):
    """The samples of a release cannot be counted: events would be invented."""


class CountedTwice(Uncountable):
    """Two scrapers have the same pod's counters: each event would count twice."""


@dataclass(frozen=True, slots=True)
class RawSeries:
    """One series and its samples in a span of time."""

    labels: Mapping[str, str]
    times: Floats  # Unix seconds, rising; shape (samples,)
    values: Floats  # of a counter; same shape


def scrape_interval(every: Sequence[RawSeries], process: Sequence[str]) -> float | None:
    """The scrape interval in seconds, to half a second: the median of the first gaps. None: too few samples."""
    firsts: dict[tuple[str, ...], Floats] = {}
    for series in every:
        known = firsts.get(_process_of(series.labels, process))
        if known is None or len(series.times) > len(known):
            firsts[_process_of(series.labels, process)] = series.times
    gaps = sorted(
        (float(end), float(gap))
        for times in firsts.values()
        for end, gap in zip(times[1 : _GAPS + 1], np.diff(times[: _GAPS + 1]), strict=False)
    )[:_GAPS]
    if len(gaps) < _FEWEST_GAPS:
        return None
    return max(0.5, round(2 * float(np.median([gap for _, gap in gaps]))) / 2)


class Fold:
    """The counters of one release: samples in, windows out, oldest first.

    Args:
        profile: says which series to read.
        counters: the signals to count, see `Profile.counters`.
        names: the release's names.
        origin_s: a border between two windows, Unix seconds.
        window_s: length of a window, seconds.
        interval_s: time between two scrapes, seconds.
        from_s: samples are read from this time on, Unix seconds.
    """

    def __init__(
        self,
        profile: Profile,
        counters: Sequence[SeriesOf],
        names: Names,
        *,
        origin_s: float,
        window_s: float,
        interval_s: float,
        from_s: float,
    ) -> None:
        self._profile, self._names = profile, names
        self._counters: defaultdict[str, list[SeriesOf]] = defaultdict(list)
        for counter in counters:
            for name in dict.fromkeys(counter.names):
                self._counters[name].append(counter)
        self._side_labels = {
            "stable": profile.labels(names, names.stable),
            "canary": profile.labels(names, names.canary),
        }
        self._origin_s, self.window_s, self.interval_s = origin_s, window_s, interval_s
        self._by_signal = {counter.signal: counter for counter in counters}
        self._known: dict[frozenset[tuple[str, str]], Counter] = {}
        self._processes: dict[tuple[str, ...], Process] = {}
        self._alike: dict[int, tuple[Counter, ...]] = {}  # by the hash of the labels that do not depend on the scraper
        self._copied: dict[int, Sequence[str]] = {}  # hashes with several scrapers, and the labels that differ
        self._since: dict[Slot, float] = {}  # when each slot was first counted, Unix seconds
        self.newest_s: dict[Side, float] = {}  # Unix time of the newest sample of each side
        self.cursor_s = self.border_before(from_s)  # Unix time up to which everything is folded

    def border_before(self, at_s: float) -> float:
        """The last border between two windows at or before `at_s`, Unix seconds."""
        return self._origin_s + self.window_s * math.floor((at_s - self._origin_s) / self.window_s)

    def lacking(self, side: Side) -> list[str]:
        """The signals of which no series of this side was ever seen."""
        seen = {slot.signal for slot in self._since if slot.side == side}
        return [signal for signal in self._by_signal if signal not in seen]

    def extend(self, every: Iterable[RawSeries], until_s: float) -> Windows:
        """The windows between the cursor and the last border before `until_s`.

        Args:
            every: all samples after the cursor and up to `until_s`; others are ignored. Samples after that border only
                update `newest_s`.
            until_s: Unix seconds.

        Raises: Uncountable.
        """
        end_s = self.border_before(until_s)
        cuts: dict[int, Cut] = {}
        parts: dict[tuple[int, float], tuple[Floats, slice]] = {}  # slices of the times that many series share
        starts: defaultdict[tuple[str, ...], list[RawSeries]] = defaultdict(list)
        for series in every:
            if series.labels.get(_NAME) == START_TIME:
                starts[_process_of(series.labels, self._profile.process)].append(series)
            known = self._known_of(series.labels)
            if known is None or not len(series.times):
                continue
            side = known.slots[0].side
            self.newest_s[side] = max(self.newest_s.get(side, -math.inf), float(series.times[-1]))
            shared = id(series.times), known.time_s
            if shared not in parts:
                first, last = np.searchsorted(series.times, (max(self.cursor_s, known.time_s), end_s), "right")
                parts[shared] = series.times, slice(first, last)
            _, part = parts[shared]
            if part.start < part.stop:
                cuts[id(known)] = known, series.times[part], series.values[part]
        windows = round((end_s - self.cursor_s) / self.window_s)
        if windows <= 0:
            return self._windows({}, end_s, 0)
        by_process: defaultdict[tuple[str, ...], list[Cut]] = defaultdict(list)
        for cut in self._counted_once(cuts):
            by_process[cut[0].process].append(cut)
        pods = {process: scrapes for process, own in by_process.items() if (scrapes := together(own))}
        for each in chain.from_iterable(pods.values()):
            _refuse_fractions(each)
        table: dict[Slot, Floats] = {}
        for process, every_scrape in pods.items():
            self._count(self._process(process, every_scrape, starts.get(process, ())), every_scrape, windows, table)
        begin_s, self.cursor_s = self.cursor_s, end_s
        return self._windows(table, begin_s, windows)

    def _known_of(self, labels: Mapping[str, str]) -> Counter | None:
        """The counter of a series; None where the series adds to nothing."""
        identity = frozenset(labels.items())
        known = self._known.get(identity)
        if known is None:
            slots = tuple(self._slots(labels))
            process = _process_of(labels, self._profile.process)
            family = hash(identity - {("le", labels["le"])}) if "le" in labels else 0
            known = Counter(process, slots, identity, family, f"{bound_of(labels)}" if family else "")
            if slots:
                self._refuse_nameless(labels, process)
                self._compare(known, labels)
            self._known[identity] = known
            first_s = math.inf
            for slot in slots:
                self._since.setdefault(slot, first_s)
        return known if known.slots else None

    def _compare(self, new: Counter, labels: Mapping[str, str]) -> None:
        """Note where another scraper has the same series."""
        bare = new.identity.difference([(label, labels[label]) for label in REPLICA_LABELS if label in labels])
        own = bare.difference([(label, labels[label]) for label in labels if not self._is_of_pod(label)])
        for kind, scraper_labels in ((bare, REPLICA_LABELS), (own, SCRAPER_LABELS)):
            key = hash((kind, scraper_labels))
            alike = self._alike.get(key, ())
            self._alike[key] = (*alike, new)
            if alike and _values_of(alike[0], scraper_labels) != _values_of(new, scraper_labels):
                self._copied[key] = scraper_labels

    def _counted_once(self, cuts: dict[int, Cut]) -> Iterable[Cut]:
        """The new samples, without a second scraper's samples from before the release.

        A scraper that takes over a pod from another one, for example after a job was renamed, counts from its first
        sample on.

        Raises: CountedTwice where two scrapers have the same pod during the release.
        """
        copied = [
            self._by_scraper(self._alike[key], scraper_labels, cuts)
            for key, scraper_labels in self._copied.items()
            if not _is_alone(self._alike[key], cuts)
        ]
        for several in copied:
            for (one, times), (other, of_other) in combinations(several, 2):
                if self._are_at_once(times[times > self._origin_s], of_other[of_other > self._origin_s]):
                    self._refuse_copies(one[0], other[0])
        for several in copied:
            several.sort(key=lambda each: -each[1][-1])  # keep the scraper with the newest sample
            for place, (counters, times) in enumerate(several):
                before = times[times <= self._origin_s]
                is_second = any(self._are_at_once(before, of_other) for _, of_other in several[:place])
                begun_s = min((of_other[0] for others, of_other in several if others is not counters), default=math.inf)
                for counter in counters:
                    if is_second and id(counter) in cuts:
                        cuts[id(counter)] = _after(self._origin_s, cuts[id(counter)])
                    if id(counter) in cuts and counter.time_s == -math.inf:
                        _, own, values = cuts[id(counter)]
                        first = np.flatnonzero(np.isfinite(values))[:1]
                        if len(first) and begun_s < own[first[0]]:
                            cuts[id(counter)] = _after(float(own[first[0]]), cuts[id(counter)])
        return cuts.values()

    @staticmethod
    def _by_scraper(
        alike: Iterable[Counter], scraper_labels: Sequence[str], cuts: Mapping[int, Cut]
    ) -> list[tuple[list[Counter], Floats]]:
        """The counters of each scraper, with the times of their last known and their new samples."""
        counters: defaultdict[tuple[str | None, ...], list[Counter]] = defaultdict(list)
        times: defaultdict[tuple[str | None, ...], list[Floats]] = defaultdict(list)
        for counter in alike:
            scraper = _values_of(counter, scraper_labels)
            counters[scraper].append(counter)
            if counter.time_s > -math.inf:
                times[scraper].append(np.array([counter.time_s]))
            if id(counter) in cuts:
                times[scraper].append(cuts[id(counter)][1])
        return [(counters[scraper], np.unique(np.concatenate(own))) for scraper, own in times.items()]

    def _are_at_once(self, one: Floats, other: Floats) -> bool:
        """Whether two scrapers were active at the same time."""
        return any(
            (np.diff(of)[places[(places > 0) & (places < len(of))] - 1] <= STALE_INTERVALS * self.interval_s).any()
            for of, places in ((one, np.searchsorted(one, other)), (other, np.searchsorted(other, one)))
        )

    def _refuse_copies(self, one: Counter, other: Counter) -> NoReturn:
        differ = sorted({label for label, _ in one.identity ^ other.identity})
        labels = [dict(each.identity) for each in (one, other)]
        seen = ", ".join(
            f"{label}={' and '.join(sorted({each.get(label, '(none)') for each in labels}))}" for label in differ
        )
        raise CountedTwice(
            "each event would count twice: two scrapers have the same pod",
            saw=f"{labels[0].get(_NAME, '')} of {'/'.join(one.process)} with {seen}",
            do="read through a query layer that deduplicates replicas (Thanos, Mimir), or from one Prometheus; let one "
            "job scrape the pods; with several clusters, name one in the profile's `where`; then lift the version "
            "(POST /v1/lift), so that its evidence starts again",
        )

    def _is_of_pod(self, label: str) -> bool:
        """Whether a label of a pod has the same value for every scraper."""
        return not (label in TARGET_LABELS or label.startswith(EXPORTED_PREFIX)) or label in self._profile.process

    def _refuse_nameless(self, labels: Mapping[str, str], process: tuple[str, ...]) -> None:
        if any(process):
            return
        raise Uncountable(
            "the series do not say which pod they belong to, so restarts and new pods cannot be recognised",
            saw=f"{labels.get(_NAME, '')} without {' and '.join(self._profile.process)}, with {_listed(labels)}",
            do="name in the profile's `process` a label that differs for each pod, such as `process: [instance]`; "
            "sums of many pods cannot be counted",
        )

    def _slots(self, labels: Mapping[str, str]) -> Iterator[Slot]:
        sides = [side for side, wanted in self._side_labels.items() if wanted.items() <= labels.items()]
        if len(sides) != 1:
            return
        side: Side = "canary" if sides[0] == "canary" else "stable"
        for counter in self._counters.get(labels.get(_NAME, ""), ()):
            key = labels.get(counter.each, "") if counter.each else ""
            if counter.each and not key:
                continue
            takes = counter.counts(labels)
            if counter.is_histogram:
                bound = bound_of(labels)
                if takes and bound is not None:
                    yield Slot(side, counter.signal, "", f"{bound}")  # normalised: pods may write a bound differently
                continue
            if takes:
                yield Slot(side, counter.signal, key, "of")
            if counter.is_part(labels):
                yield Slot(side, counter.signal, key, "bad")

    def _process(self, process: tuple[str, ...], every: Sequence[Scrapes], starts: Sequence[RawSeries]) -> Process:
        """The process of a pod. If its first scrape says that it has just started, its counters began at 0."""
        known = self._processes.get(process)
        if known is None:
            first_s = min(float(scrapes.times[0]) for scrapes in every)
            said = [float(start_s) for each in starts for start_s in each.values[each.times == first_s]]
            age_s = first_s - min(said, default=-math.inf)
            is_new = 0 <= age_s <= STALE_INTERVALS * self.interval_s
            known = self._processes[process] = Process(first_s, is_new=is_new)
        return known

    def _count(self, process: Process, every: Sequence[Scrapes], windows: int, table: dict[Slot, Floats]) -> None:
        """Add the new events of one pod."""
        bounds = _bounds(every)
        for scrapes, growth in zip(every, process.growth(every), strict=True):
            # A sample on a border belongs to the window that ends there.
            places = np.ceil((scrapes.times - self.cursor_s) / self.window_s).astype(np.int64) - 1
            used, firsts = np.unique(np.clip(places, 0, windows - 1), return_index=True)
            events = np.zeros((len(growth), windows))
            events[:, used] = np.add.reduceat(growth, firsts, axis=1)
            first_s = float(scrapes.times[0])
            for counter, of_counter in zip(scrapes.counters, events, strict=True):
                for slot in counter.slots:
                    self._since[slot] = min(self._since[slot], first_s)
                    is_whole = slot.part == _INFINITE
                    to = Slot(slot.side, slot.signal, _ALL, bounds[counter.family]) if is_whole else slot
                    table[to] = table[to] + of_counter if to in table else of_counter

    def _windows(self, table: Mapping[Slot, Floats], begin_s: float, windows: int) -> Windows:
        ends_s: Floats = begin_s + self.window_s * np.arange(1, windows + 1, dtype=np.float64)
        columns: dict[str, Column] = {}
        for signal, counter in self._by_signal.items():
            slots = {slot for slot in self._since if slot.signal == signal and self._since[slot] < math.inf}
            columns |= self._columns(counter, slots, table, ends_s)
        names = sorted(columns)
        counts = _whole(np.array([columns[name][1] for name in names]).reshape(len(names), 4, windows))
        has_events = (counts[:, 1] != 0) | (counts[:, 3] != 0)
        is_known = np.array([columns[name][0] for name in names], np.bool_).reshape(len(names), windows)
        is_there = (has_events & is_known).T
        some = is_there.any(axis=1)
        return Windows(
            tuple(names),
            ends_s[some],
            np.full((int(some.sum()), len(names)), self.window_s),
            np.where(is_there[:, :, np.newaxis], counts.transpose(2, 0, 1), 0)[some],
            is_there[some],
        )

    def _columns(
        self, counter: SeriesOf, slots: set[Slot], table: Mapping[Slot, Floats], ends_s: Floats
    ) -> dict[str, Column]:
        """The columns by signal with its key, for the windows that end at `ends_s`."""
        if counter.is_histogram:
            return self._of_histogram(counter, slots, table, ends_s)
        found, nothing = {}, np.zeros(len(ends_s))
        since: dict[str, float] = {}
        for slot in slots:
            since[slot.key] = min(self._since[slot], since.get(slot.key, math.inf))
        every = {
            side: sum((table[slot] for slot in slots & table.keys() if slot.side == side), nothing) for side in SIDES
        }
        for key, since_s in since.items():
            columns: list[Floats] = []
            for side in SIDES:
                of_key = table.get(Slot(side, counter.signal, key, "of"), nothing)
                if counter.bad is None:  # every event has one key, so the total is the sum over all keys
                    columns += of_key, every[side]
                    continue
                part = table.get(Slot(side, counter.signal, key, "bad"), nothing)
                columns += of_key - part if counter.is_good else part, of_key
            found[f"{counter.signal}:{key}" if key else counter.signal] = ends_s >= since_s, columns
        return found

    def _of_histogram(
        self, counter: SeriesOf, slots: set[Slot], table: Mapping[Slot, Floats], ends_s: Floats
    ) -> dict[str, Column]:
        """The columns of a histogram, one for each bound.

        A bound is known in a window if every side that was seen by the window's end had the bound by then. Later
        samples do not change this, so folding everything at once gives the same windows as folding in parts.
        """
        found, nothing = {}, np.zeros(len(ends_s))
        bounds = {side: {float(slot.part): slot for slot in slots if slot.side == side} for side in SIDES}
        present = [side for side in SIDES if math.inf in bounds[side]]
        every_bound = {bound for side in present for bound in bounds[side]}
        wholes = {side: [slot for slot in table if slot[:3] == (side, counter.signal, _ALL)] for side in SIDES}
        for bound in every_bound - {math.inf}:
            if counter.bound is not None and bound != counter.bound:
                continue
            columns: list[Floats] = []
            is_seen, lacks = np.zeros((2, len(ends_s)), np.bool_)
            for side in SIDES:
                has_side = ends_s >= (self._since[bounds[side][math.inf]] if side in present else math.inf)
                if side not in present or bound not in bounds[side]:
                    columns += nothing, nothing
                    lacks |= has_side
                    continue
                has_bound = ends_s >= self._since[bounds[side][bound]]
                is_seen, lacks = is_seen | has_bound, lacks | (has_side & ~has_bound)
                # Only of pods that have this bound: otherwise all requests of the other pods would seem above it.
                every = sum((table[slot] for slot in wholes[side] if f"{bound}" in slot.part.split()), nothing)
                within = table.get(bounds[side][bound], nothing)
                columns += every - within if counter.is_bad_above else within, every
            found[counter.named(bound)] = is_seen & ~lacks, columns
        return found


def _whole(counts: Floats) -> NDArray[np.int64]:
    """The counts as whole numbers; bad events that were read ahead of their total are capped at the total.

    Args:
        counts: bad and all events alternate along the second axis.
    """
    whole = np.rint(counts).astype(np.int64)
    every = np.maximum(whole[:, 1::2], 0)
    whole[:, 1::2], whole[:, ::2] = every, np.clip(whole[:, ::2], 0, every)
    return whole


def _bounds(every: Iterable[Scrapes]) -> dict[int, str]:
    """The bounds of each histogram of a pod as one text, by the histogram's family."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for scrapes in every:
        for counter in scrapes.counters:
            if counter.family:
                found[counter.family].add(counter.bound)
    return {family: " ".join(sorted(bounds)) for family, bounds in found.items()}


def _after(at_s: float, cut: Cut) -> Cut:
    """The samples after `at_s`; the last one up to then becomes the counter's last sample."""
    counter, times, values = cut
    place = int(np.searchsorted(times, at_s, "right"))
    for known in np.flatnonzero(np.isfinite(values[:place]))[-1:]:
        counter.time_s, counter.value = float(times[known]), float(values[known])
    return counter, times[place:], values[place:]


def _is_alone(alike: Iterable[Counter], cuts: Mapping[int, Cut]) -> bool:
    """Whether only one of these copies has new samples, and it took over after all others had ended."""
    latest = sorted(alike, key=lambda each: each.time_s)
    return latest[-1].time_s > -math.inf and not any(id(each) in cuts for each in latest[:-1])


def _values_of(counter: Counter, scraper_labels: Sequence[str]) -> tuple[str | None, ...]:
    labels = dict(counter.identity)
    return tuple(labels.get(label) for label in scraper_labels)


def _refuse_fractions(scrapes: Scrapes) -> None:
    """Raise Uncountable for values that are not whole numbers: an event has happened or it has not."""
    is_part = scrapes.values != np.rint(scrapes.values)
    if is_part.any():
        place, at = np.argwhere(is_part)[0]
        labels = dict(scrapes.counters[place].identity)
        raise Uncountable(
            "these values are not counts of events",
            saw=f"{scrapes.values[place, at]:g} of {labels.get(_NAME, '')}, with {_listed(labels)}",
            do="name the raw counter in the profile, not a rate or share of it such as a recording rule's",
        )


def _listed(labels: Mapping[str, str]) -> str:
    return f"{', '.join(f'{label}={value}' for label, value in sorted(labels.items()) if label != _NAME):.300}"


def _process_of(labels: Mapping[str, str], process: Sequence[str]) -> tuple[str, ...]:
    return tuple(labels.get(label, "") for label in process)


def bound_of(labels: Mapping[str, str]) -> float | None:
    """The bound of a histogram's bucket; None: the series is not a bucket."""
    try:
        return float(labels["le"])
    except (KeyError, ValueError):
        return None
