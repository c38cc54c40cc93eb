"""Argo Rollouts: a canary with timed steps and an AnalysisRun in the background.

Written from `docs/features/analysis.md`, `docs/analysis/prometheus.md`, `analysis/analysis.go` (how limits and counts
end a metric), `utils/evaluate/evaluate.go` (conditions) and `rollout/analysis.go` (Failed and Error abort, Inconclusive
pauses) of github.com/argoproj/argo-rollouts, v1.10.0-rc1-70-g9f8d111. It does not depend on other tools.
"""

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum

from benchmarks.judge.tool import Outcome
from rollout.judge import Pair

_ERROR_RETRY_S = 10.0  # DefaultErrorRetryInterval


class Phase(Enum):
    """Of one measurement, of a metric, or of a whole AnalysisRun."""

    RUNNING = "Running"
    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    ERROR = "Error"
    INCONCLUSIVE = "Inconclusive"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of an AnalysisTemplate: `successCondition: result[0] >= success_at_least`. Defaults are Argo's."""

    success_at_least: float  # success ratio, 0 to 1
    failure_below: float | None = None  # None: no failureCondition, so everything but a success is a failure
    failure_limit: int = 0  # most failed measurements; -1: not applicable
    inconclusive_limit: int = 0
    consecutive_error_limit: int = 4
    consecutive_success_limit: int = 0  # successes in a row that end the metric; 0: not applicable
    count: int | None = None  # measurements to take; None: until the rollout ends

    def measure(self, ratio: float | None) -> Phase:
        """Evaluate one result: a success ratio, NaN after 0 divided by 0, None for an empty vector."""
        if ratio is None:
            return Phase.ERROR  # `result[0]` of an empty array cannot be evaluated
        is_success = ratio >= self.success_at_least
        is_failure = not is_success if self.failure_below is None else ratio < self.failure_below
        if is_failure:
            return Phase.FAILED
        return Phase.SUCCESSFUL if is_success else Phase.INCONCLUSIVE


class MetricResult:
    """The measurements of one metric so far."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._failed = self._inconclusive = self._counted = 0
        self._consecutive_errors = self._consecutive_successes = 0

    def add(self, measurement: Phase) -> Phase:
        """Count one more measurement and return the phase of the metric."""
        self._consecutive_successes = self._consecutive_successes + 1 if measurement is Phase.SUCCESSFUL else 0
        if measurement is Phase.ERROR:
            self._consecutive_errors += 1
        else:
            self._consecutive_errors = 0
            self._counted += 1
            self._failed += measurement is Phase.FAILED
            self._inconclusive += measurement is Phase.INCONCLUSIVE
        return self._phase()

    def _phase(self) -> Phase:
        metric = self._metric
        if self._consecutive_errors > metric.consecutive_error_limit:
            return Phase.ERROR
        if self._inconclusive > metric.inconclusive_limit:
            return Phase.INCONCLUSIVE
        if 0 <= metric.failure_limit < self._failed:
            return Phase.FAILED
        if 0 < metric.consecutive_success_limit <= self._consecutive_successes:
            return Phase.SUCCESSFUL
        if metric.count is None or self._counted < metric.count:
            return Phase.RUNNING
        if not metric.consecutive_success_limit:
            return Phase.SUCCESSFUL
        return Phase.FAILED if metric.failure_limit < 0 else Phase.INCONCLUSIVE


class ArgoRollout:
    """`setWeight` and `pause` in turns, with the analysis in the background from the first step to the last."""

    def __init__(
        self,
        metric: Metric,
        *,
        steps: tuple[int, ...] = (1, 5, 25, 50),
        pause_s: float = 300.0,
        interval_s: float = 60.0,
        initial_delay_s: float = 60.0,
    ) -> None:
        """
        Args:
            steps: weights, percent; after the last one the canary takes all traffic and the analysis ends.
            interval_s: between measurements, each of the success ratio over the same time before it.
            initial_delay_s: before the first measurement, so that there is something to measure.
        """
        self._metric, self._result = metric, MetricResult(metric)
        self._steps, self._pause_s, self._interval_s = steps, pause_s, interval_s
        self._step = 0
        self._due_s = initial_delay_s
        self._is_measuring = True
        self._recent: deque[tuple[float, Pair]] = deque()
        self._has_series = False

    @property
    def weight_percent(self) -> int:
        return self._steps[self._step]

    def observe(self, elapsed_s: float, stable: Pair, canary: Pair) -> Outcome | None:  # noqa: ARG002 - as in Tool
        self._recent.append((elapsed_s, canary))
        while self._recent[0][0] <= elapsed_s - self._interval_s:
            self._recent.popleft()
        self._has_series |= canary.total > 0
        if self._is_measuring and elapsed_s >= self._due_s:
            match self._measure(elapsed_s):
                case Phase.FAILED | Phase.ERROR:
                    return "rolled_back"
                case Phase.INCONCLUSIVE:
                    return "held"
                case Phase.SUCCESSFUL:
                    self._is_measuring = False
        if elapsed_s < self._pause_s * (self._step + 1):
            return None
        if self._step == len(self._steps) - 1:
            return "promoted"
        self._step += 1
        return None

    def _measure(self, elapsed_s: float) -> Phase:
        measurement = self._metric.measure(self._success_ratio())
        self._due_s = elapsed_s + (_ERROR_RETRY_S if measurement is Phase.ERROR else self._interval_s)
        return self._result.add(measurement)

    def _success_ratio(self) -> float | None:
        """sum(rate(successes[interval])) / sum(rate(requests[interval])), as Prometheus answers."""
        if not self._has_series:
            return None
        recent = sum((canary for _, canary in self._recent), Pair(0, 0))
        return 1 - recent.bad / recent.total if recent.total else math.nan
