"""From raw samples of many pods to windows of new events.

Counters are differenced series by series, never `rate()`: each event is in one window, that of the sample which showed
it first. The same samples give the same windows, whether they are folded at once or in parts.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rollout.errors import RolloutError
from rollout.judge.types import Pair, Window
from rollout.signals.growth import Counter, Floats, Process, Scrapes, Side, Slot, together
from rollout.signals.profile import COPIED_BY, EXPORTED, OF_TARGET, TOLD_BY, Names, Profile, SeriesOf

SIDES: tuple[Side, Side] = ("stable", "canary")

STALE_INTERVALS = 3  # scrapes that a pod may miss before its newest sample is stale
START_TIME = "process_start_time_seconds"  # as Prometheus's client libraries name it
_NAME = "__name__"
_ALL = "all"  # key of the events of those histograms that have a bound
_INFINITE = f"{math.inf}"  # the bound that all have
_new_pair = partial(tuple.__new__, Pair)  # `Pair._make` without its check takes half as long
_GAPS = 20  # between samples, which tell the scrape interval
_FEWEST_GAPS = 2


class Uncountable(RolloutError):
    """What there is of a release cannot be counted: events would be invented."""


class CountedTwice(Uncountable):
    """The same pod's counters came from two scrapers: each event would count twice."""


@dataclass(frozen=True, slots=True)
class RawSeries:
    """One series and its samples in a span of time."""

    labels: Mapping[str, str]
    times: Floats  # Unix seconds, rising; shape (samples,)
    values: Floats  # of a counter; same shape


def scrape_interval(every: Sequence[RawSeries], process: Sequence[str]) -> float | None:
    """How often pods are scraped, to half a second: the median of the first gaps. None: too few samples to tell."""
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
        profile: what is read.
        counters: the signals that are counted, see `Profile.counters`.
        names: which release it is.
        origin_s: a border between two windows, Unix seconds.
        window_s: length of a window, seconds.
        interval_s: between two scrapes, seconds.
        from_s: from when samples are read, Unix seconds.
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
        self._copies: dict[int, frozenset[tuple[str, str]]] = {}  # by the hash of the labels without `COPIED_BY`
        self._scraped: dict[int, frozenset[tuple[str, str]]] = {}  # and of those without what says who scraped
        self._since: dict[Slot, float] = {}  # when each was first counted
        self.newest_s: dict[Side, float] = {}  # time of the newest sample of each side
        self.cursor_s = self.border_before(from_s)  # all up to here is folded

    def border_before(self, at_s: float) -> float:
        """The last border between two windows that is not after `at_s`."""
        return self._origin_s + self.window_s * math.floor((at_s - self._origin_s) / self.window_s)

    def lacking(self, side: Side) -> list[str]:
        """The signals of which a side has no series that was ever seen."""
        seen = {slot.signal for slot in self._since if slot.side == side}
        return [signal for signal in self._by_signal if signal not in seen]

    def extend(self, every: Iterable[RawSeries], until_s: float) -> list[Window]:
        """The windows between the cursor and the last border before `until_s`.

        Args:
            every: all samples after the cursor and up to `until_s`; others are not looked at, nor are those after that
                border but for how new they are.

        Raises: Uncountable.
        """
        end_s = self.border_before(until_s)
        by_process: defaultdict[tuple[str, ...], list[tuple[Counter, Floats, Floats]]] = defaultdict(list)
        starts: defaultdict[tuple[str, ...], list[RawSeries]] = defaultdict(list)
        for series in every:
            if series.labels.get(_NAME) == START_TIME:
                starts[_process_of(series.labels, self._profile.process)].append(series)
            known = self._known_of(series.labels)
            if known is None or not len(series.times):
                continue
            side = known.slots[0].side
            self.newest_s[side] = max(self.newest_s.get(side, -math.inf), float(series.times[-1]))
            first, last = np.searchsorted(series.times, (max(self.cursor_s, known.time_s), end_s), "right")
            if first < last:
                values = series.values[first:last]
                _refuse_fractions(series.labels, values)
                by_process[known.process].append((known, series.times[first:last], values))
        windows = round((end_s - self.cursor_s) / self.window_s)
        if windows <= 0:
            return []
        table: dict[Slot, Floats] = {}
        for process, cuts in by_process.items():
            if every_scrape := together(cuts):
                self._count(self._met(process, every_scrape, starts.get(process, ())), every_scrape, windows, table)
        begin_s, self.cursor_s = self.cursor_s, end_s
        return list(self._windows(table, begin_s, windows))

    def _known_of(self, labels: Mapping[str, str]) -> Counter | None:
        """What is known of a series; None where it counts for nothing."""
        identity = frozenset(labels.items())
        known = self._known.get(identity)
        if known is None:
            slots = tuple(self._slots(labels))
            process = _process_of(labels, self._profile.process)
            if slots:
                self._refuse_copies(labels, identity)
                self._refuse_nameless(labels, process)
            family = hash(identity - {("le", labels["le"])}) if "le" in labels else 0
            known = self._known[identity] = Counter(process, slots, family)
            first_s = math.inf
            for slot in slots:
                self._since.setdefault(slot, first_s)
        return known if known.slots else None

    def _refuse_copies(self, labels: Mapping[str, str], identity: frozenset[tuple[str, str]]) -> None:
        bare = frozenset((label, value) for label, value in identity if label not in COPIED_BY)
        other = self._copies.setdefault(hash(bare), identity)
        if other == identity:
            own = frozenset((label, value) for label, value in bare if self._is_of_pod(label))
            other = self._scraped.setdefault(hash(own), identity)
            of_other = dict(other)
            if all(of_other.get(label) == labels.get(label) for label in TOLD_BY):
                return
        differ = sorted({label for label, _ in identity ^ other})
        seen = ", ".join(
            f"{label}={' and '.join(sorted({dict(each).get(label, '(none)') for each in (other, identity)}))}"
            for label in differ
        )
        pod = "/".join(_process_of(labels, self._profile.process))
        raise CountedTwice(
            "each event is counted twice: two scrapers have the same pod",
            saw=f"{labels.get(_NAME, '')} of {pod} with {seen}",
            do="read through a query layer that deduplicates replicas (Thanos, Mimir), or from one Prometheus; let one "
            "job scrape the pods; of several clusters name one in the profile's `where`",
        )

    def _is_of_pod(self, label: str) -> bool:
        """Whether a label says the same of a pod whoever scrapes it."""
        return label in self._profile.process or not (label in OF_TARGET or label.startswith(EXPORTED))

    def _refuse_nameless(self, labels: Mapping[str, str], process: tuple[str, ...]) -> None:
        if any(process):
            return
        raise Uncountable(
            "it is not known which pod has counted what, so neither which of them was restarted nor which is new",
            saw=f"{labels.get(_NAME, '')} without {' and '.join(self._profile.process)}, with {_listed(labels)}",
            do="name in the profile's `process` a label that is another for each pod, such as `process: [instance]`; "
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
                    yield Slot(side, counter.signal, "", f"{bound}")  # however this pod writes it
                continue
            if takes:
                yield Slot(side, counter.signal, key, "of")
            if counter.is_part(labels):
                yield Slot(side, counter.signal, key, "bad")

    def _met(self, process: tuple[str, ...], every: Sequence[Scrapes], starts: Sequence[RawSeries]) -> Process:
        """What is known of a pod. One that says in its first scrape that it has just started has counted from 0."""
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
            # A sample on a border closes the window that ends there.
            places = np.ceil((scrapes.times - self.cursor_s) / self.window_s).astype(np.int64) - 1
            used, firsts = np.unique(np.clip(places, 0, windows - 1), return_index=True)
            events = np.zeros((len(growth), windows))
            events[:, used] = np.add.reduceat(growth, firsts, axis=1)
            first_s = float(scrapes.times[0])
            for counter, of_counter in zip(scrapes.counters, events, strict=True):
                for slot in counter.slots:
                    self._since[slot] = min(self._since[slot], first_s)
                for slot in _adds_to(counter, bounds):
                    table[slot] = table[slot] + of_counter if slot in table else of_counter

    def _windows(self, table: Mapping[Slot, Floats], begin_s: float, windows: int) -> Iterator[Window]:
        nothing = np.zeros(windows)
        ends = begin_s + self.window_s * np.arange(1, windows + 1)
        columns: dict[str, tuple[float, tuple[NDArray[np.int64], ...]]] = {}
        for signal, counter in self._by_signal.items():
            slots = {slot for slot in self._since if slot.signal == signal and self._since[slot] < math.inf}
            columns |= self._columns(counter, slots, table, nothing)
        rows = []
        for name in sorted(columns):
            since_s, (stable_bad, stable_total, canary_bad, canary_total) = columns[name]
            is_counted = (ends >= since_s) & ((stable_total != 0) | (canary_total != 0))
            stable, canary = (
                [*map(_new_pair, zip(bad.tolist(), total.tolist(), strict=True))]
                for bad, total in ((stable_bad, stable_total), (canary_bad, canary_total))
            )
            rows.append((name, is_counted.tolist(), stable, canary))
        for place, end_s in enumerate(ends.tolist()):
            for name, is_counted, stable, canary in rows:
                if is_counted[place]:
                    yield Window(end_s, self.window_s, name, stable[place], canary[place])

    def _columns(
        self, counter: SeriesOf, slots: set[Slot], table: Mapping[Slot, Floats], nothing: Floats
    ) -> dict[str, tuple[float, tuple[NDArray[np.int64], ...]]]:
        """By signal with its key: since when it is known, and bad and all events of stable and of the canary."""
        if counter.is_histogram:
            return self._of_histogram(counter, slots, table, nothing)
        found = {}
        since: dict[str, float] = {}
        for slot in slots:
            since[slot.key] = min(self._since[slot], since.get(slot.key, math.inf))
        every = {
            side: sum((table[slot] for slot in slots & table.keys() if slot.side == side), nothing) for side in SIDES
        }
        for key, since_s in since.items():
            columns: list[NDArray[np.int64]] = []
            for side in SIDES:
                of_key = table.get(Slot(side, counter.signal, key, "of"), nothing)
                if counter.bad is None:  # every event has one key: all of them are the total
                    columns += _pair(of_key, every[side])
                    continue
                part = table.get(Slot(side, counter.signal, key, "bad"), nothing)
                columns += _pair(of_key - part if counter.is_good else part, of_key)
            found[f"{counter.signal}:{key}" if key else counter.signal] = (since_s, tuple(columns))
        return found

    def _of_histogram(
        self, counter: SeriesOf, slots: set[Slot], table: Mapping[Slot, Floats], nothing: Floats
    ) -> dict[str, tuple[float, tuple[NDArray[np.int64], ...]]]:
        found = {}
        bounds = {side: {float(slot.part): slot for slot in slots if slot.side == side} for side in SIDES}
        present = [side for side in SIDES if math.inf in bounds[side]]
        common = set.intersection(*(set(bounds[side]) for side in present)) if present else set()
        for bound in common - {math.inf}:
            if counter.bound is not None and bound != counter.bound:
                continue
            columns: list[NDArray[np.int64]] = []
            since_s = min(self._since[bounds[side][bound]] for side in present)
            for side in SIDES:
                if side not in present:
                    columns += _pair(nothing, nothing)
                    continue
                # Of the pods that have this bound: another's requests would all be beyond it.
                every = table.get(bounds[side][bound]._replace(key=_ALL), nothing)
                within = table.get(bounds[side][bound], nothing)
                columns += _pair(every - within if counter.is_bad_above else within, every)
            found[counter.named(bound)] = (since_s, tuple(columns))
        return found


def _pair(bad: Floats, total: Floats) -> list[NDArray[np.int64]]:
    """Whole events; where bad ones were read ahead of all, no more of them than there are."""
    every = np.maximum(np.rint(total), 0).astype(np.int64)
    return [np.clip(np.rint(bad).astype(np.int64), 0, every), every]


def _bounds(every: Iterable[Scrapes]) -> dict[int, set[str]]:
    """Those of each histogram of a pod, by its family."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for scrapes in every:
        for counter in scrapes.counters:
            if counter.family:
                found[counter.family] |= {slot.part for slot in counter.slots}
    return found


def _adds_to(counter: Counter, bounds: Mapping[int, Iterable[str]]) -> Iterator[Slot]:
    """Its slots. All events of a histogram also add to all that each of its bounds is compared with."""
    yield from counter.slots
    for slot in counter.slots:
        if slot.part == _INFINITE:
            yield from (slot._replace(key=_ALL, part=bound) for bound in bounds[counter.family])


def _refuse_fractions(labels: Mapping[str, str], values: Floats) -> None:
    """Raises Uncountable: an event has happened or not."""
    is_part = values != np.rint(values)
    if is_part.any() and (is_part := is_part & np.isfinite(values)).any():
        raise Uncountable(
            "these values are no counts of events",
            saw=f"{values[is_part][0]:g} of {labels.get(_NAME, '')}, with {_listed(labels)}",
            do="name the raw counter in the profile, and no rate or share of it, such as a recording rule's",
        )


def _listed(labels: Mapping[str, str]) -> str:
    return f"{', '.join(f'{label}={value}' for label, value in sorted(labels.items()) if label != _NAME):.300}"


def _process_of(labels: Mapping[str, str], process: Sequence[str]) -> tuple[str, ...]:
    return tuple(labels.get(label, "") for label in process)


def bound_of(labels: Mapping[str, str]) -> float | None:
    """The bound of a series of a histogram's buckets; None: it is of none."""
    try:
        return float(labels["le"])
    except (KeyError, ValueError):
        return None
