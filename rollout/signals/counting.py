"""How a signal's (bad, total) are computed from one process's counts of one version.

A process counts events by one property: requests by status, durations by bucket, answers by class. A row of the
catalogue says which of them are bad.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Literal

from rollout.judge.types import Numbers, Pair

# Kanaria's names for the counts of every data plane; the data plane's folder under routers/ translates its names.
GATEWAY_REQUESTS = "requests"  # answered requests by `code`: three digits
SAVED = "5ok"  # the code of a request that the chosen version failed, and that another one answered in its place
GATEWAY_DURATION_MS = "duration_ms"  # the same requests in a cumulative histogram

SUM, SQUARES = "sum", "squares"  # keys of the two counters of a signal whose events are numbers


class Side(Enum):
    """Who counts the events."""

    GATEWAY = "gateway"
    SERVICE = "service"
    OBSERVER = "observer"
    USER = "user"  # the user's own counter on a version's metrics page


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Events by outcome, some of which are bad."""

    side: Side
    series: str
    label: str
    bad: str  # a regular expression that must match the label's whole value
    untold: str = ""  # the same for values that leave it open, such as `4xx`; where one occurs, nothing is counted

    def pairs(self, counts: Mapping[str, int]) -> Iterator[tuple[str, Pair]]:
        if self.untold and any(re.fullmatch(self.untold, outcome) for outcome in counts):
            return
        bad = sum(count for outcome, count in counts.items() if re.fullmatch(self.bad, outcome))
        yield "", Pair(bad, sum(counts.values()))


@dataclass(frozen=True, slots=True)
class KeyedOutcomes:
    """Events by outcome under each value of another label, such as an age; events with other outcomes do not count.

    Several key labels are joined by commas, and so are their values.
    """

    side: Side
    series: str
    key_label: str
    outcome_label: str
    bad: str
    good: str

    @property
    def label(self) -> str:
        """Both labels, as `Table.label` writes several."""
        return f"{self.key_label},{self.outcome_label}"

    def pairs(self, counts: Mapping[str, int]) -> Iterator[tuple[str, Pair]]:
        for key in dict.fromkeys(value.rpartition(",")[0] for value in counts):
            bad, good = (counts.get(f"{key},{outcome}", 0) for outcome in (self.bad, self.good))
            yield key, Pair(bad, bad + good)


@dataclass(frozen=True, slots=True)
class OutcomesByKey:
    """Events by outcome under each value of another label, such as a route. A key appears with its first event."""

    side: Side
    series: str
    key_label: str
    outcome_label: str
    bad: str  # a regular expression that must match the whole outcome

    @property
    def label(self) -> str:
        """Both labels, as `Table.label` writes several."""
        return f"{self.key_label},{self.outcome_label}"

    def pairs(self, counts: Mapping[str, int]) -> Iterator[tuple[str, Pair]]:
        found: dict[str, Pair] = {}
        for value, count in counts.items():
            key, _, outcome = value.rpartition(",")  # a route may hold a comma
            bad = count if re.fullmatch(self.bad, outcome) else 0
            found[key] = found.get(key, Pair(0, 0)) + Pair(bad, count)
        yield from found.items()


@dataclass(frozen=True, slots=True)
class EachValue:
    """Events by a value, such as the predicted class. Each value is a signal; every event has exactly one."""

    side: Side
    series: str
    label: str

    def pairs(self, counts: Mapping[str, int]) -> Iterator[tuple[str, Pair]]:
        total = sum(counts.values())
        for value, count in counts.items():
            yield value, Pair(count, total)


@dataclass(frozen=True, slots=True)
class Buckets:
    """A cumulative histogram: at each bound, the events above it or those within it are bad."""

    side: Side
    histogram: str
    bounds: tuple[float, ...]
    bad: Literal["above", "within"]

    @property
    def series(self) -> str:
        """The name of the buckets' series."""
        return f"{self.histogram}_bucket"

    @property
    def label(self) -> str:
        return "le"

    def pairs(self, counts: Mapping[str, int]) -> Iterator[tuple[str, Pair]]:
        within = {float(le): count for le, count in counts.items()}
        observed = within.get(inf)
        for bound in self.bounds:
            if observed is not None and bound in within:
                above = max(0, observed - within[bound])
                yield str(bound), Pair(above if self.bad == "above" else within[bound], observed)


@dataclass(frozen=True, slots=True)
class Steps:
    """A cumulative histogram in which each event is a number: how many of the bounds it exceeds.

    The sum of the numbers and the sum of their squares are two counters, each a (bad, total) pair whose total is the
    largest possible sum. So they are read, stored and subtracted like all other counters.
    """

    side: Side
    histogram: str
    bounds: tuple[float, ...]

    @property
    def series(self) -> str:
        """The name of the buckets' series."""
        return f"{self.histogram}_bucket"

    @property
    def label(self) -> str:
        return "le"

    def pairs(self, counts: Mapping[str, int]) -> Iterator[tuple[str, Pair]]:
        """Yields nothing where a bound is missing, as with a gateway of an earlier version."""
        within = {float(le): count for le, count in counts.items()}
        if any(bound not in within for bound in (*self.bounds, inf)):
            return
        above = [max(0, within[inf] - within[bound]) for bound in self.bounds]
        most = len(above)
        yield SUM, Pair(sum(above), most * within[inf])
        squares = sum((2 * below + 1) * count for below, count in enumerate(above))
        yield SQUARES, Pair(squares, most * most * within[inf])

    def numbers(self, total: Pair, squares: Pair) -> Numbers:
        """Count, sum and sum of squares of the numbers, from the two counters."""
        return Numbers(total.total // len(self.bounds), float(total.bad), float(squares.bad))


Counter = Outcomes | KeyedOutcomes | OutcomesByKey | EachValue | Buckets | Steps
