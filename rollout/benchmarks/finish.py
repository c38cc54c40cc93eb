"""How one release of the benchmark ended, whoever led it. Made by `ours` and `race`, added up by `results`."""

from dataclasses import dataclass

from rollout.benchmarks.tool import Outcome
from rollout.simulation.traffic import Scenario

HORIZON_S = 4 * 3600.0  # harm is counted up to here, longer than any tool takes to decide


@dataclass(frozen=True, slots=True)
class Finish:
    """Times are seconds since the canary's first request."""

    outcome: Outcome
    cause: str | None  # what stopped it; None when promoted
    stopped_s: float  # when it was promoted, rolled back or left to a person
    full_s: float | None  # when the canary got all traffic; None: never
    harmed: float  # requests answered worse than stable would have, in expectation, within the horizon


def harmed_at(scenario: Scenario, weight: float, start_s: float, end_s: float) -> float:
    """Requests harmed in expectation while the canary has this share, 0 to 1, of the traffic."""
    return scenario.rps * weight * scenario.harm * max(0.0, end_s - max(start_s, scenario.harm_after_s))
