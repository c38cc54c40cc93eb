"""What the metrics mean: samples to (bad, total) counters, and two readings to windows of new events.

Metric sources call `counters`, the controller calls `merge` and `windows`. Pure: it knows the names of the
gateway's and the service's metrics, not how or when they are fetched, nor what is concluded from them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from urllib.parse import unquote

from rollout.interfaces import Reading, SeriesKey
from rollout.judge.types import Pair, Window

LATENCY_BOUNDS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)  # bucket bounds of the gateway's histograms
CONFIDENCE_BOUNDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # and of the service's

REQUESTS = "envoy_kanaria_predict_total"
DURATION = "envoy_kanaria_predict_duration_ms_bucket"
SHADOW_REQUESTS = "envoy_cluster_upstream_rq_xx"
SHADOW_DURATION = "envoy_cluster_upstream_rq_time_bucket"
PREDICTIONS = "kanaria_predictions_total"
CONFIDENCE = "kanaria_confidence_bucket"
FEEDBACK = "kanaria_feedback_total"
DISAGREEMENT = "kanaria_disagreement_total"

KEY_LABELS = {  # all metrics that are read; the label that tells one version's series apart
    REQUESTS: "code",
    DURATION: "le",
    SHADOW_REQUESTS: "envoy_response_code_class",
    SHADOW_DURATION: "le",
    PREDICTIONS: "label",
    CONFIDENCE: "le",
    FEEDBACK: "outcome",
    DISAGREEMENT: "outcome",
}
_HUNG_UP = "0"  # the gateway's code for a client that left before it was answered
_NOTHING = Pair(0, 0)


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of a metrics page and its value."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class SignalSelection:
    """Which signals a release wants."""

    errors: bool = True
    latency_ms: tuple[int, ...] = (25, 50, 100, 250)  # among LATENCY_BOUNDS_MS
    predictions: bool = True
    low_confidence_below: float | None = 0.5  # among CONFIDENCE_BOUNDS
    labels: bool = True
    disagreement: bool = True

    def name(self, counted: str) -> str | None:
        """What windows call a counter; None when it is not wanted."""
        family, _, bound = counted.partition(":")
        wanted = {
            "errors": self.errors,
            "latency": family == "latency" and float(bound) in self.latency_ms,
            "class": self.predictions,
            "low_confidence": family == "low_confidence" and float(bound) == self.low_confidence_below,
            "wrong_label": self.labels,
            "disagreement": self.disagreement,
        }
        if not wanted[family]:
            return None
        return family if family == "low_confidence" else counted


def counters(samples: Mapping[str, Iterable[Sample]], *, mirrored: str | None = None) -> dict[SeriesKey, Pair]:
    """Every counter of every version: the signals of a window, but `low_confidence:<bound>` for each bound.

    All of them, because a counter that one release leaves out would look new, with all its history, in the next.

    Args:
        samples: what each instance exports; an instance is the `host:port` of the gateway or of a version's process.
        mirrored: the tag whose copied requests count. Its own requests stay in the reading beside them: it gets none
            while it is mirrored, and those of an earlier attempt must not look new when it gets traffic again.
    """
    found: dict[SeriesKey, Pair] = {}
    for instance, exported in samples.items():
        for (name, version), counts in _tables(exported).items():
            is_shadow = name in (SHADOW_REQUESTS, SHADOW_DURATION)
            if is_shadow and version != mirrored:
                continue
            where = f"{instance}/shadow" if is_shadow else instance
            found |= {(where, version, signal): pair for signal, pair in _pairs(name, counts)}
    return found


def merge(previous: Reading | None, current: Reading) -> Reading:
    """All that is known after `current`: what it lacks keeps its last value. Keep the result as the next `previous`.

    An instance that was away for some readings is so counted once, from where it was. Where `bad` was read ahead of
    its `total`, the rest of it waits for the next reading.
    """
    if previous is None:
        return current
    known = {key: before + new for key, before, new in _growth(previous, current)}
    # A class alone may be missing because its process started again and has not predicted it since.
    present = {_family(key) for key in known}
    absent = {key: last for key, last in previous.counters.items() if _family(key) not in present}
    return Reading(at_s=current.at_s, counters=known | absent)


def windows(
    previous: Reading,
    current: Reading,
    *,
    stable: str,
    canary: str,
    selection: SignalSelection,
    is_mirrored: bool = False,
) -> list[Window]:
    """New events since `previous`: one window for each selected signal of which there were any.

    A series that `previous` lacks counts from 0, and so does one whose total fell: its process started again. One
    that started again and overtook its old total between two readings looks like smaller growth; events may then be
    missed, but none is ever invented.

    Args:
        previous: all that was known before, as `merge` gave it.
        current: a new reading, merged or not.
        stable: tag of one side.
        canary: tag of the other.
        selection: the signals wanted.
        is_mirrored: the canary answers a copy of every request, so that its answers can be compared with stable's.
    """
    new = {key: events for key, _, events in _growth(previous, current)}
    totals: defaultdict[tuple[str, str], Pair] = defaultdict(lambda: _NOTHING)
    for (_, version, counted), events in (new | _absent_classes(new)).items():
        if (signal := selection.name(counted)) is not None:
            totals[version, signal] += events
    # Stable counts the same pairs of answers. It is what the canary is compared with, and agrees with itself.
    compared = totals[canary, "disagreement"].total if is_mirrored else 0
    totals[stable, "disagreement"] = Pair(0, compared)
    totals[canary, "disagreement"] = totals[canary, "disagreement"] if is_mirrored else _NOTHING
    return [
        Window(
            end_s=current.at_s,
            window_s=max(0.0, current.at_s - previous.at_s),
            signal=signal,
            stable=totals[stable, signal],
            canary=totals[canary, signal],
        )
        for signal in sorted({signal for _, signal in totals})
        if totals[stable, signal].total or totals[canary, signal].total
    ]


def _tables(samples: Iterable[Sample]) -> dict[tuple[str, str], dict[str, int]]:
    """Sort samples by metric and version: in each table, value of the key label -> count."""
    tables: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for sample in samples:
        version = _version(sample)
        key = sample.labels.get(KEY_LABELS.get(sample.name, ""))
        if version is not None and key is not None:
            table = tables[sample.name, version]
            table[key] = table.get(key, 0) + int(sample.value)
    return tables


def _version(sample: Sample) -> str | None:
    """The version that a sample is evidence about, if any."""
    if sample.name in (SHADOW_REQUESTS, SHADOW_DURATION):
        cluster = unquote(sample.labels.get("envoy_cluster_name", ""))
        return cluster.removeprefix("shadow/") if cluster.startswith("shadow/") else None
    version = sample.labels.get("version")
    if not version and sample.name == REQUESTS and sample.labels.get("code", "").startswith("5"):
        return sample.labels.get("routed")  # chosen, but too full to take it: users saw that error
    # Sent to one version and answered by another: a fallback, which is evidence about neither.
    is_fallback = sample.labels.get("routed", version) != version
    return None if is_fallback else version


def _pairs(name: str, counts: Mapping[str, int]) -> Iterator[tuple[str, Pair]]:
    """The signals that one version's series of one metric give."""
    total = sum(counts.values())
    if name in (REQUESTS, SHADOW_REQUESTS):
        failed = sum(count for code, count in counts.items() if code.startswith("5"))
        yield "errors", Pair(failed, total - counts.get(_HUNG_UP, 0))
    elif name in (DURATION, SHADOW_DURATION):
        for bound, within, observed in _buckets(counts, LATENCY_BOUNDS_MS):
            yield f"latency:{bound}", Pair(max(0, observed - within), observed)
    elif name == CONFIDENCE:
        for bound, within, observed in _buckets(counts, CONFIDENCE_BOUNDS):
            yield f"low_confidence:{bound}", Pair(within, observed)
    elif name == PREDICTIONS:
        for label, rows in counts.items():
            yield f"class:{label}", Pair(rows, total)
    elif name == FEEDBACK:
        yield "wrong_label", Pair(counts.get("wrong", 0), total)
    elif name == DISAGREEMENT:
        yield "disagreement", Pair(counts.get("different", 0), total)


def _buckets(counts: Mapping[str, int], bounds: tuple[float, ...]) -> Iterator[tuple[float, int, int]]:
    """Each known bound of a cumulative histogram: (bound, observations within it, all observations)."""
    within = {float(le): count for le, count in counts.items()}
    for bound in bounds:
        if bound in within and inf in within:
            yield bound, within[bound], within[inf]


def _growth(previous: Reading, current: Reading) -> Iterator[tuple[SeriesKey, Pair, Pair]]:
    """For each series of `current`: its key, what was counted before, and the new events."""
    # A class that is predicted for the first time has a new series, but the rows before it were counted already.
    rows = {_family(key): pair.total for key, pair in previous.counters.items() if _is_class(key)}
    for key, now in current.counters.items():
        before = previous.counters.get(key, Pair(0, rows.get(_family(key), 0)))
        if now.total < before.total:
            before = _NOTHING
        total = now.total - before.total
        yield key, before, Pair(min(max(0, now.bad - before.bad), total), total)


def _absent_classes(new: Mapping[SeriesKey, Pair]) -> dict[SeriesKey, Pair]:
    """Classes that some version predicted and another never did: none of its rows were of that class."""
    labels = {key[2] for key in new if _is_class(key)}
    rows = {key[:2]: events.total for key, events in new.items() if _is_class(key)}
    every = {(*process, label): Pair(0, total) for process, total in rows.items() for label in labels}
    return {key: events for key, events in every.items() if key not in new}


def _is_class(key: SeriesKey) -> bool:
    return key[2].startswith("class:")


def _family(key: SeriesKey) -> SeriesKey:
    """The key with all classes of one process taken together."""
    return (key[0], key[1], "class:") if _is_class(key) else key
