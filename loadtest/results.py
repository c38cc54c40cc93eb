"""The JSON files that the Locust process writes: the live counters while it runs, and the summary at its end."""

from enum import IntEnum
from pathlib import Path

from loadtest.scenario import Scenario, Strict, Task


class ExitCode(IntEnum):
    """The exit code of a load test."""

    PASSED = 0
    GATE_BROKEN = 1
    BAD_INPUT = 2
    NOTHING_MEASURED = 3


class Latency(Strict):
    """Percentiles in milliseconds, at most 1 % above the true ones. All are 0 if `count` is 0."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class VersionCounts(Strict):
    """The answers of one version, and how many of their rows were right and wrong."""

    answers: int = 0
    correct: int = 0
    wrong: int = 0


class Failure(Strict):
    """One failed request."""

    at: float  # Unix seconds, when it failed
    task: Task
    status: int  # HTTP status; 0: no answer
    message: str
    version: str | None
    request_id: str | None


class Window(Strict):
    """One window of the run. An arrival counts in the window in which it was due, an answer when it arrived."""

    start_s: float  # from the start of the run
    offered: int  # arrivals that were due
    answered: int  # requests that ended, failed or not
    failures: int
    slipped: int
    scheduled: Latency
    service: Latency
    versions: dict[str, int]  # answers by version


class TaskCounts(Strict):
    requests: int
    failures: int
    scheduled: Latency


class Gate(Strict):
    """One limit and what was measured."""

    name: str
    limit: float
    measured: float
    passed: bool


class Live(Strict):
    """The counters of a run, rewritten each second while it runs."""

    updated_at: float  # Unix seconds
    elapsed_s: float
    duration_s: float  # of the whole scenario
    offered: int
    requests: int
    failures: int
    in_flight: int
    slipped: int
    recent_p50_ms: float  # scheduled latency in the last full window
    recent_p99_ms: float
    versions: dict[str, VersionCounts]
    last_failure: Failure | None


class Summary(Strict):
    """The whole run."""

    scenario: Scenario
    host: str
    started_at: float  # Unix seconds
    duration_s: float  # until the last answer
    stopped_early: bool
    exit_code: ExitCode
    gates: tuple[Gate, ...]
    offered: int  # arrivals that came due
    requests: int  # requests that ended, failed or not
    failures: int
    slipped: int  # of `offered`: sent late, or not sent at all
    not_sent: int  # of `slipped`: still waiting for a free user at the end
    worst_slip_ms: float
    scheduled: Latency  # from the time a request was due: what a user experiences
    service: Latency  # from the time it was sent
    tasks: dict[Task, TaskCounts]
    versions: dict[str, VersionCounts]
    failure_list: tuple[Failure, ...]  # the first ones
    generator_cpu_s: float
    window_s: float
    windows: tuple[Window, ...]


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` in one step: a reader sees the whole old text or the whole new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)
