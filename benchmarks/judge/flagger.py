"""Flagger: one check a minute, one step after each good one, rollback after enough bad ones.

Written from `docs/gitbook/usage/deployment-strategies.md`, `how-it-works.md` and `metrics.md`, and from
`pkg/controller/scheduler.go` (the order within one tick), `scheduler_metrics.go` (a missing value fails the check) and
`pkg/metrics/providers/prometheus.go` (NaN is a missing value) of github.com/fluxcd/flagger, v1.44.0. It does not depend
on other tools.
"""

from dataclasses import dataclass

from benchmarks.judge.tool import Outcome
from rollout.judge import Pair


@dataclass(frozen=True, slots=True)
class Analysis:
    """`spec.analysis` of a Canary. Defaults are those of the example that the documentation explains."""

    interval_s: float = 60.0
    threshold: int = 10  # failed checks before the rollback
    step_weight: int = 2  # percent
    max_weight: int = 50  # percent
    min_success_percent: float = 99.0  # request-success-rate over one interval


class FlaggerCanary:
    """A progressive canary. Failed checks add up over the whole analysis; a good check does not cancel a failed one."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._weight = analysis.step_weight  # the first tick routes the first step and checks nothing
        self._failed_checks = 0
        self._next_tick_s = analysis.interval_s
        self._minute = Pair(0, 0)

    @property
    def weight_percent(self) -> int:
        return self._weight

    def observe(self, elapsed_s: float, stable: Pair, canary: Pair) -> Outcome | None:  # noqa: ARG002 - as in Tool
        self._minute += canary
        if elapsed_s < self._next_tick_s:
            return None
        seen, self._minute = self._minute, Pair(0, 0)
        self._next_tick_s += self._analysis.interval_s
        return self._tick(seen)

    def _tick(self, seen: Pair) -> Outcome | None:
        if self._failed_checks >= self._analysis.threshold:
            return "rolled_back"
        if not self._is_good(seen):
            self._failed_checks += 1
            return None
        if self._weight >= self._analysis.max_weight:
            return "promoted"
        self._weight += self._analysis.step_weight
        return None

    def _is_good(self, seen: Pair) -> bool:
        if not seen.total:
            return False  # "no values found": the check fails
        return 100 * (seen.total - seen.bad) / seen.total >= self._analysis.min_success_percent
