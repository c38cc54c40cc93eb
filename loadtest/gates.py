"""Checks the numbers of a run against the scenario's limits: numbers in, gates and exit code out."""

from collections.abc import Sequence

from loadtest.results import ExitCode, Gate, Latency
from loadtest.scenario import Gates


def check_gates(
    limits: Gates, *, offered: int, requests: int, failures: int, slipped: int, scheduled: Latency
) -> tuple[Gate, ...]:
    """Check the measurements against every limit that is set.

    Args:
        limits: the scenario's limits.
        offered: arrivals that came due.
        requests: requests that ended, failed or not.
        failures: how many of `requests` failed.
        slipped: how many of `offered` were sent late or never.
        scheduled: latency from the scheduled time.
    """
    error_ratio = failures / requests if requests else 0.0
    slip_ratio = slipped / offered if offered else 0.0
    gates = [
        Gate(name="min_requests", limit=limits.min_requests, measured=requests, passed=requests >= limits.min_requests),
        Gate(
            name="error_ratio", limit=limits.error_ratio, measured=error_ratio, passed=error_ratio <= limits.error_ratio
        ),
        Gate(name="slip_ratio", limit=limits.slip_ratio, measured=slip_ratio, passed=slip_ratio <= limits.slip_ratio),
    ]
    for name, limit, measured in (
        ("p95_ms", limits.p95_ms, scheduled.p95_ms),
        ("p99_ms", limits.p99_ms, scheduled.p99_ms),
    ):
        if limit is not None:
            gates.append(Gate(name=name, limit=limit, measured=measured, passed=measured <= limit))
    return tuple(gates)


def exit_code(requests: int, gates: Sequence[Gate]) -> ExitCode:
    """The exit code for CI. No data is never a pass."""
    if requests == 0:
        return ExitCode.NOTHING_MEASURED
    return ExitCode.PASSED if all(gate.passed for gate in gates) else ExitCode.GATE_BROKEN
