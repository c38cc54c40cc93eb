"""Turns the counts of processes into (bad, total) counters, and two readings into windows of new events.

The catalogue defines the signals.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from contract.answer_types import class_name
from rollout.judge.types import BothNumbers, Pair, Window
from rollout.signals.catalogue import ANSWERED_ELSEWHERE, catalogue
from rollout.signals.counting import SQUARES, SUM, OutcomesByKey, Steps
from rollout.signals.custom import PREFIX, Mean, OwnCounter, is_count

_NOTHING = Pair(0, 0)

SeriesKey = tuple[str, str, str]  # (instance, version tag, signal)


@dataclass(frozen=True, slots=True)
class Reading:
    """Raw cumulative counters at one instant, as (bad, total) per instance, version and signal."""

    at_s: float  # Unix seconds
    counters: Mapping[SeriesKey, Pair]


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of a metrics page and its value."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Table:
    """One instance's counts of one version in one series, by the values of a label, or of several joined by commas."""

    instance: str
    version: str
    series: str
    label: str
    counts: Mapping[str, int]


def counters(tables: Iterable[Table]) -> dict[SeriesKey, Pair]:
    """Every counter of every version, with one per key, such as `low_confidence:<bound>` for each bound.

    All counters are read, even unused ones: a counter that one release left out would look new in the next release,
    and its whole history would count as new events.
    """
    return {
        (table.instance, table.version, f"{name}:{key}" if key else name): pair
        for table in tables
        for name, counter in catalogue().counted.get((table.series, table.label), ())
        for key, pair in counter.pairs(table.counts)
    }


def version_tables(instance: str, samples: Iterable[Sample], *, own: str | None = None) -> Iterator[Table]:
    """The counts on the metrics page of a version's process, for each series that a signal uses.

    Each of these series has the label `version`. A label with an empty value counts as missing, as in Prometheus.
    Values that cannot be counts are left out.

    Args:
        own: the version that the process serves; counts of other versions are left out. None: keep all versions.
    """
    counts: defaultdict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    labels_of: defaultdict[str, list[str]] = defaultdict(list)
    for series, label in catalogue().of_versions:
        labels_of[series].append(label)
    for sample in samples:
        version = sample.labels.get("version")
        is_told = own in (None, version) and is_count(sample.value)
        for label in labels_of.get(sample.name, ()):
            if version and is_told:
                values = (class_name(sample.labels.get(each, "")) for each in label.split(","))
                add(counts[version, sample.name, label], ",".join(values), sample.value)
    for (version, series, label), table in counts.items():
        yield Table(instance, version, series, label, table)


def own_counters(
    instance: str, version: str, samples: Iterable[Sample], own: Sequence[OwnCounter]
) -> dict[SeriesKey, Pair]:
    """The counters of the user's own signals on the metrics page of one process of `version`."""
    page: defaultdict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
    for sample in samples if own else ():
        page[sample.name].append((sample.labels, sample.value))
    return {
        (instance, version, f"{counter.name}:{key}" if key else counter.name): pair
        for counter in own
        for key, pair in counter.counted.pairs(page)
    }


def own_series(own: Sequence[OwnCounter]) -> tuple[str, ...]:
    """The names of the series that these counters read."""
    return tuple(dict.fromkeys(name for counter in own for name in counter.counted.series))


def add(counts: dict[str, int], value: str, events: float) -> None:
    """Add `events` to the count of a label's value, which other labels may spread over several series."""
    counts[value] = counts.get(value, 0) + int(events)


def merge(previous: Reading | None, current: Reading) -> Reading:
    """All counters known after `current`; those that it lacks keep their last value.

    Pass the result as the next `previous`.
    So an instance that was missing from some readings is counted once, from its last value. Where `bad` was read ahead
    of its `total`, the surplus waits for the next reading.
    """
    if previous is None:
        return current
    known = {key: before + new for key, before, new in _growth(previous, current)}
    # A class may be missing because its process was restarted and has not predicted the class since.
    present = {_family(key) for key in known}
    absent = {key: last for key, last in previous.counters.items() if _family(key) not in present}
    return Reading(at_s=current.at_s, counters=known | absent)


def windows(
    previous: Reading,
    current: Reading,
    *,
    stable: str,
    canary: str,
    has_pairs: bool = False,
    own: Sequence[OwnCounter] = (),
) -> list[Window]:
    """New events since `previous`: one window for each counter that grew. `SignalSelection.of` picks a release's own.

    A series that `previous` lacks counts from 0. So does a series whose total fell, because its process was restarted.
    A series that was restarted and passed its old total between two readings looks like smaller growth: events may then
    be missed, but none is ever invented. Routes and the user's own counters appear with their first event or later, and
    a counter of the user's that falls may not be a counter. For these, counting begins with `current`.

    Args:
        previous: everything known before, from `merge`.
        current: a new reading, merged or not.
        stable: tag of one side.
        canary: tag of the other.
        has_pairs: both versions answer some requests, all or a share of them, so that their answers can be compared.
        own: the user's own counters in the readings.
    """
    new = {key: events for key, _, events in _growth(previous, current)}
    totals: defaultdict[tuple[str, str], Pair] = defaultdict(lambda: _NOTHING)
    for (_, version, counted), events in (new | _absent_keys(new)).items():
        totals[version, counted] += events
    for row in catalogue().in_plans.values():
        if row.is_of_copies:
            # Only the canary counts pairs of answers. Stable gets the same total and nothing bad: it is the reference.
            compared = totals[canary, row.name] if has_pairs else _NOTHING
            totals[stable, row.name], totals[canary, row.name] = Pair(0, compared.total), compared
    end_s, window_s = current.at_s, max(0.0, current.at_s - previous.at_s)
    of_numbers = []
    decoders: dict[str, Steps | Mean] = dict(catalogue().steps)
    decoders |= {counter.name: counter.counted for counter in own if isinstance(counter.counted, Mean)}
    for name, steps in decoders.items():
        numbers = BothNumbers(*(steps.numbers(*_popped(totals, version, name)) for version in (stable, canary)))
        pairs = [Pair(0, each.total) for each in numbers]
        of_numbers.append(Window(end_s, window_s, name, pairs[0], pairs[1], numbers))
    return sorted(
        (
            window
            for window in (
                *(
                    Window(end_s, window_s, signal, totals[stable, signal], totals[canary, signal])
                    for signal in {signal for _, signal in totals}
                ),
                *of_numbers,
            )
            if window.stable.total or window.canary.total
        ),
        key=lambda window: window.signal,
    )


def _popped(totals: dict[tuple[str, str], Pair], version: str, name: str) -> tuple[Pair, Pair]:
    """Remove and return the counts of the sum and of the squares of a signal of numbers."""
    return totals.pop((version, f"{name}:{SUM}"), _NOTHING), totals.pop((version, f"{name}:{SQUARES}"), _NOTHING)


def _growth(previous: Reading, current: Reading) -> Iterator[tuple[SeriesKey, Pair, Pair]]:
    """For each series of `current`: its key, the counts before, and the new events."""
    # A class that is predicted for the first time has a new series, but the events before it were counted already.
    rows = {_family(key): pair.total for key, pair in previous.counters.items() if _is_partition(key)}
    for key, now in current.counters.items():
        is_own = key[2].startswith(PREFIX)
        before = previous.counters.get(key)
        if before is None:
            before = now if is_own or _appears_late(key) else Pair(0, rows.get(_family(key), 0))
        if now.total < before.total:
            before = now if is_own else _NOTHING
        total = now.total - before.total
        yield key, before, Pair(min(max(0, now.bad - before.bad), total), total)


def _absent_keys(new: Mapping[SeriesKey, Pair]) -> dict[SeriesKey, Pair]:
    """Zero counts for classes that one version predicted and another never did."""
    signals = defaultdict(set)
    rows = {}
    for key, events in new.items():
        if _is_partition(key):
            signals[_family(key)[2]].add(key[2])
            rows[_family(key)] = events.total
    every = {
        (instance, version, signal): Pair(0, total)
        for (instance, version, family), total in rows.items()
        for signal in signals[family]
    }
    return {key: events for key, events in every.items() if key not in new}


def _is_partition(key: SeriesKey) -> bool:
    """Whether the series counts one key of a family of which every event has exactly one key."""
    return key[2].partition(":")[0] in catalogue().partitions


def _appears_late(key: SeriesKey) -> bool:
    """Whether the series appears only with its first event, or was not counted by an earlier controller."""
    row = catalogue().of(key[2])
    return key[2] == ANSWERED_ELSEWHERE or (row is not None and isinstance(row.counter, OutcomesByKey))


def _family(key: SeriesKey) -> SeriesKey:
    """The key without the class: one for all classes of one process."""
    family = key[2].partition(":")[0]
    return (key[0], key[1], family) if family in catalogue().partitions else key
