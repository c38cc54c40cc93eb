"""Counts every request of a run in bounded memory: in total, per window, per task and per version.

All times are seconds from the start of the run.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from hdrh.histogram import HdrHistogram

from loadtest.gates import check_gates, exit_code
from loadtest.http_contract import Reply
from loadtest.results import Failure, Latency, Live, Summary, TaskCounts, VersionCounts, Window
from loadtest.scenario import Scenario, Task

MOST_WINDOWS = 900  # two histograms each, together at most 25 MB
LISTED_FAILURES = 200
_LONGEST_US = 3_600_000_000  # longer latencies count as one hour
_DIGITS = 2  # significant decimal digits: reported values are less than 1 % above the true ones


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request that ended."""

    task: Task
    due_s: float
    sent_s: float
    done_s: float
    status: int  # HTTP status; 0: no answer
    reply: Reply


class _Histogram:
    def __init__(self) -> None:
        self._hdr = HdrHistogram(1, _LONGEST_US, _DIGITS, word_size=4)
        self._sum_s = 0.0  # the library's own mean reads every bucket, which takes 3 ms each time

    def record(self, seconds: float) -> None:
        self._sum_s += seconds
        self._hdr.record_value(min(_LONGEST_US, max(1, round(seconds * 1e6))))

    def latency(self) -> Latency:
        count = self._hdr.total_count
        if not count:
            return Latency(count=0, mean_ms=0, p50_ms=0, p90_ms=0, p95_ms=0, p99_ms=0, max_ms=0)
        at = self._hdr.get_percentile_to_value_dict([50, 90, 95, 99])
        return Latency(
            count=count,
            mean_ms=round(self._sum_s / count * 1e3, 3),
            p50_ms=at[50] / 1e3,
            p90_ms=at[90] / 1e3,
            p95_ms=at[95] / 1e3,
            p99_ms=at[99] / 1e3,
            max_ms=self._hdr.get_max_value() / 1e3,
        )


@dataclass(slots=True)
class _Window:
    offered: int = 0
    answered: int = 0
    failures: int = 0
    slipped: int = 0
    scheduled: _Histogram = field(default_factory=_Histogram)
    service: _Histogram = field(default_factory=_Histogram)
    versions: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _TaskCounts:
    requests: int = 0
    failures: int = 0
    scheduled: _Histogram = field(default_factory=_Histogram)


class Recorder:
    """The counters of one run."""

    def __init__(self, scenario: Scenario, started_at: float) -> None:
        """`started_at` is the start of the run in Unix seconds."""
        self._scenario = scenario
        self._started_at = started_at
        self.window_s = float(max(1, math.ceil(scenario.duration_s / MOST_WINDOWS)))
        self._windows: defaultdict[int, _Window] = defaultdict(_Window)
        self._tasks: defaultdict[Task, _TaskCounts] = defaultdict(_TaskCounts)
        self._versions: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._failures: list[Failure] = []
        self._last_failure: Failure | None = None
        self._scheduled, self._service = _Histogram(), _Histogram()
        self._offered = self._requests = self._failed = self._slipped = self._not_sent = 0
        self._worst_slip_s = self._last_done_s = 0.0

    def sent(self, due_s: float, sent_s: float) -> None:
        """Count a request that was due at `due_s` and sent at `sent_s`."""
        window = self._window(due_s)
        self._offered += 1
        window.offered += 1
        slip_s = sent_s - due_s
        self._worst_slip_s = max(self._worst_slip_s, slip_s)
        if slip_s * 1e3 > self._scenario.late_after_ms:
            self._slipped += 1
            window.slipped += 1

    def not_sent(self, due_s: float) -> None:
        """Count an arrival that came due but was not sent, because no user was free before the run ended."""
        window = self._window(due_s)
        self._offered += 1
        self._slipped += 1
        self._not_sent += 1
        window.offered += 1
        window.slipped += 1

    def ended(self, outcome: Outcome) -> None:
        """Count the end of a request that was sent."""
        due, ended = self._window(outcome.due_s), self._window(outcome.done_s)
        task = self._tasks[outcome.task]
        self._requests += 1
        task.requests += 1
        ended.answered += 1
        self._last_done_s = max(self._last_done_s, outcome.done_s)
        for histogram in (self._scheduled, due.scheduled, task.scheduled):
            histogram.record(outcome.done_s - outcome.due_s)
        for histogram in (self._service, due.service):
            histogram.record(outcome.done_s - outcome.sent_s)
        reply = outcome.reply
        if reply.version is not None:
            self._versions[reply.version].update(answers=1, correct=reply.correct, wrong=reply.wrong)
            ended.versions[reply.version] += 1
        if reply.failure is not None:
            self._failed += 1
            task.failures += 1
            ended.failures += 1
            self._keep_failure(outcome, reply.failure)

    def live(self, now_s: float) -> Live:
        """The counters at `now_s`."""
        last_full = self._windows.get(int(now_s // self.window_s) - 1)
        recent = (last_full.scheduled if last_full else self._scheduled).latency()
        return Live(
            updated_at=self._started_at + now_s,
            elapsed_s=round(now_s, 3),
            duration_s=self._scenario.duration_s,
            offered=self._offered,
            requests=self._requests,
            failures=self._failed,
            in_flight=self._offered - self._not_sent - self._requests,
            slipped=self._slipped,
            recent_p50_ms=recent.p50_ms,
            recent_p99_ms=recent.p99_ms,
            versions=self._version_counts(),
            last_failure=self._last_failure,
        )

    def summary(self, *, host: str, stopped_early: bool, generator_cpu_s: float) -> Summary:
        """All numbers of the run, and the result of each gate."""
        scheduled = self._scheduled.latency()
        gates = check_gates(
            self._scenario.gates,
            offered=self._offered,
            requests=self._requests,
            failures=self._failed,
            slipped=self._slipped,
            scheduled=scheduled,
        )
        return Summary(
            scenario=self._scenario,
            host=host,
            started_at=self._started_at,
            duration_s=round(self._last_done_s, 3),
            stopped_early=stopped_early,
            exit_code=exit_code(self._requests, gates),
            gates=gates,
            offered=self._offered,
            requests=self._requests,
            failures=self._failed,
            slipped=self._slipped,
            not_sent=self._not_sent,
            worst_slip_ms=round(self._worst_slip_s * 1e3, 3),
            scheduled=scheduled,
            service=self._service.latency(),
            tasks={
                task: TaskCounts(
                    requests=counts.requests, failures=counts.failures, scheduled=counts.scheduled.latency()
                )
                for task, counts in self._tasks.items()
            },
            versions=self._version_counts(),
            failure_list=tuple(self._failures),
            generator_cpu_s=round(generator_cpu_s, 3),
            window_s=self.window_s,
            windows=tuple(
                Window(
                    start_s=index * self.window_s,
                    offered=window.offered,
                    answered=window.answered,
                    failures=window.failures,
                    slipped=window.slipped,
                    scheduled=window.scheduled.latency(),
                    service=window.service.latency(),
                    versions=dict(window.versions),
                )
                for index, window in sorted(self._windows.items())
            ),
        )

    def _window(self, at_s: float) -> _Window:
        # Answers after the scenario's end count in the last window, so that memory stays bounded.
        last = math.ceil(self._scenario.duration_s / self.window_s) - 1
        index = min(int(at_s // self.window_s), last)
        return self._windows[index]

    def _version_counts(self) -> dict[str, VersionCounts]:
        return {name: VersionCounts(**counts) for name, counts in sorted(self._versions.items())}

    def _keep_failure(self, outcome: Outcome, message: str) -> None:
        failure = Failure(
            at=self._started_at + outcome.done_s,
            task=outcome.task,
            status=outcome.status,
            message=message,
            version=outcome.reply.version,
            request_id=outcome.reply.request_id,
        )
        self._last_failure = failure
        if len(self._failures) < LISTED_FAILURES:
            self._failures.append(failure)
