"""How one release of the benchmark ended, with any tool."""

from dataclasses import dataclass

from benchmarks.judge.tool import Outcome

HORIZON_S = 4 * 3600.0  # harm is counted up to here, longer than any tool takes to decide


@dataclass(frozen=True, slots=True)
class Result:
    """Times are seconds since the canary's first request."""

    outcome: Outcome
    cause: str | None  # what stopped it; None when promoted
    stopped_s: float  # when it was promoted, rolled back or left to a person
    full_s: float | None  # when the canary got all traffic; None: never
    harmed: float  # requests answered worse than stable would have, in expectation, within the horizon
