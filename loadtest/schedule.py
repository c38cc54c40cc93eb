"""Decides when each request is due, and its kind, before the first one is sent."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from loadtest.scenario import Scenario, Segment, Task


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of the schedule."""

    due_s: float  # seconds from the start of the run
    task: Task


def arrivals(scenario: Scenario) -> Iterator[Arrival]:
    """Every request of `scenario`, in the order in which they are due.

    Constant arrivals are evenly spread. Poisson arrivals come from a unit-rate process whose time is stretched by the
    inverse of the cumulative rate, which is exact for any rate that changes over time. Times and kinds are drawn from
    separate streams, so another mix does not change the times.

    Source: Cinlar 1975, Introduction to Stochastic Processes, theorem 4.7.4 (time change).
    """
    gaps = random.Random(f"{scenario.seed}/gaps")  # noqa: S311 - a repeatable schedule, not a secret
    kinds = random.Random(f"{scenario.seed}/kinds")  # noqa: S311 - as above
    tasks, weights = list(scenario.weights), list(scenario.weights.values())

    def gap() -> float:
        return gaps.expovariate(1.0) if scenario.arrivals == "poisson" else 1.0

    start_s, expected_before, target = 0.0, 0.0, gap()
    for segment in scenario.shape:
        expected_after = expected_before + segment.expected
        while target <= expected_after:
            due_s = start_s + _time_of(segment, target - expected_before)
            yield Arrival(due_s, kinds.choices(tasks, weights)[0])
            target += gap()
        start_s, expected_before = start_s + segment.for_s, expected_after


def _time_of(segment: Segment, expected: float) -> float:
    """Seconds into `segment` until `expected` requests are expected: the inverse of the cumulative rate."""
    slope = (segment.end_rate - segment.rate) / segment.for_s
    # This form of the quadratic's root does not divide by a small difference, so it also works for slope 0. Rounding
    # may push the last request of a falling ramp below the root's domain, hence the `max`.
    root = math.sqrt(max(0.0, segment.rate**2 + 2 * slope * expected))
    return min(segment.for_s, 2 * expected / (segment.rate + root))
