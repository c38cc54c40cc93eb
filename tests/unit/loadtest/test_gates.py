"""Gates turn the numbers of a run into the exit code that CI reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.gates import check_gates, exit_code
from loadtest.results import ExitCode, Gate, Latency
from loadtest.scenario import Gates

FAST = Latency(count=100, mean_ms=5, p50_ms=5, p90_ms=10, p95_ms=20, p99_ms=40, max_ms=50)
LIMITS = Gates(p95_ms=20, p99_ms=40, error_ratio=0.01, min_requests=100, slip_ratio=0.02)


def broken(*, requests: int = 100, failures: int = 1, slipped: int = 2, latency: Latency = FAST) -> set[str]:
    gates = check_gates(LIMITS, offered=100, requests=requests, failures=failures, slipped=slipped, scheduled=latency)
    return {gate.name for gate in gates if not gate.passed}


def test_a_number_at_its_limit_passes() -> None:
    """A gate says "at most" or "at least": the limit itself is allowed."""
    assert broken() == set()


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("min_requests", {"requests": 99, "failures": 0}),
        ("error_ratio", {"failures": 2}),
        ("slip_ratio", {"slipped": 3}),
        ("p95_ms", {"latency": FAST.model_copy(update={"p95_ms": 20.1})}),
        ("p99_ms", {"latency": FAST.model_copy(update={"p99_ms": 40.1})}),
    ],
)
def test_each_limit_breaks_its_own_gate(name: str, numbers: dict[str, int | Latency]) -> None:
    """One number past its limit breaks that gate and no other."""
    assert broken(**numbers) == {name}  # type: ignore[arg-type] # the table above pairs names and types


def test_a_latency_limit_that_is_not_set_is_not_a_gate() -> None:
    """A run is checked only against limits that the scenario states."""
    gates = check_gates(Gates(), offered=1, requests=1, failures=0, slipped=0, scheduled=FAST)
    assert {gate.name for gate in gates} == {"min_requests", "error_ratio", "slip_ratio"}


@given(requests=st.integers(0, 3), verdicts=st.lists(st.booleans(), max_size=5))
def test_the_exit_code_follows_from_the_gates(requests: int, verdicts: list[bool]) -> None:
    """0 only if something was measured and every gate holds; 3 if nothing was measured, whatever the gates say."""
    gates = [Gate(name="p95_ms", limit=1, measured=1, passed=passed) for passed in verdicts]
    if requests == 0:
        expected = ExitCode.NOTHING_MEASURED
    else:
        expected = ExitCode.PASSED if all(verdicts) else ExitCode.GATE_BROKEN
    assert exit_code(requests, gates) is expected
